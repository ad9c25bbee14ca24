"""Wan 2.x, text to video, in the layout of a diffusers checkpoint."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from testbed.models.files import VOCABULARY, write_byte_tokenizer, write_json

WIDTH = 64
HEAD = 32
HEADS = 2
LAYERS = 2
INNER = 128
LATENT = 16


def write(folder: Path) -> None:
    ids = write_byte_tokenizer(
        folder / "tokenizer", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], chat_template=None
    )
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=HEAD,
            d_ff=INNER,
            num_layers=LAYERS,
            num_heads=HEADS,
            pad_token_id=ids["<|endoftext|>"],
            eos_token_id=ids["<|im_end|>"],
        )
    )
    autoencoder = AutoencoderKLWan(
        base_dim=8,
        z_dim=LATENT,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[False, True, True],
    )
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=HEADS,
        attention_head_dim=HEAD,
        in_channels=LATENT,
        out_channels=LATENT,
        text_dim=WIDTH,
        freq_dim=64,
        ffn_dim=INNER,
        num_layers=LAYERS,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=1e-6,
        rope_max_seq_len=1024,
    )
    text_encoder.to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    autoencoder.to(torch.bfloat16).save_pretrained(folder / "vae")
    transformer.to(torch.bfloat16).save_pretrained(folder / "transformer")
    # The real model's noise schedule.
    UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=3.0,
    ).save_pretrained(folder / "scheduler")
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "WanPipeline",
            "_diffusers_version": diffusers.__version__,
            "scheduler": ["diffusers", "UniPCMultistepScheduler"],
            "text_encoder": ["transformers", "UMT5EncoderModel"],
            "tokenizer": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "WanTransformer3DModel"],
            "vae": ["diffusers", "AutoencoderKLWan"],
        },
    )
