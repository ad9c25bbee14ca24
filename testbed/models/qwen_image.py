"""Qwen-Image, text to image, in the layout of a diffusers checkpoint."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageTransformer2DModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from testbed.models.files import VOCABULARY, write_byte_tokenizer, write_json

WIDTH = 64
HEAD = 32
HEADS = 2
LAYERS = 2
INNER = 128
#: Channels of the latents, and of the four of them that make one token.
LATENT = 16
PATCH = 4 * LATENT


def write(folder: Path) -> None:
    ids = write_byte_tokenizer(
        folder / "tokenizer",
        [
            *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
            *("<|image_pad|>", "<|video_pad|>"),
        ],
        tokenizer_class="Qwen2Tokenizer",
    )
    _text_encoder(ids).save_pretrained(folder / "text_encoder")
    _autoencoder().save_pretrained(folder / "vae")
    _transformer().save_pretrained(folder / "transformer")
    # The real model's noise schedule.
    FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=0.5,
        max_image_seq_len=8192,
        max_shift=0.9,
        shift=1.0,
        shift_terminal=0.02,
        time_shift_type="exponential",
        use_dynamic_shifting=True,
    ).save_pretrained(folder / "scheduler")
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "QwenImagePipeline",
            "_diffusers_version": diffusers.__version__,
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
            "tokenizer": ["transformers", "Qwen2Tokenizer"],
            "transformer": ["diffusers", "QwenImageTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKLQwenImage"],
        },
    )


def _text_encoder(ids: dict[str, int]) -> torch.nn.Module:
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": VOCABULARY,
                "hidden_size": WIDTH,
                "intermediate_size": INNER,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": HEADS,
                "num_key_value_heads": 1,
                "max_position_embeddings": 4096,
                "bos_token_id": ids["<|endoftext|>"],
                "eos_token_id": ids["<|im_end|>"],
                "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
                "tie_word_embeddings": False,
            },
            vision_config={
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_heads": 2,
                "out_hidden_size": WIDTH,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "fullatt_block_indexes": [0],
            },
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
        )
    )


def _autoencoder() -> torch.nn.Module:
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=LATENT,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[False, True, True],
    )


def _transformer() -> torch.nn.Module:
    return QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=PATCH,
        out_channels=LATENT,
        num_layers=LAYERS,
        attention_head_dim=HEAD,
        num_attention_heads=HEADS,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 12, 12),
    )
