"""Qwen3-Omni (mixture of experts): thinker, talker and code2wav."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from testbed.models.files import CHATML, VOCABULARY, write_byte_tokenizer, write_json

WIDTH = 64
#: The serving code counts on 16.
CODE_GROUPS = 16
CODEBOOK = 2048
CODEC_EOS = 2150

SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    *("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"),
    *("<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>"),
)
#: One token each, as in the real vocabulary.
ROLES = ("user", "assistant", "system")


def write(folder: Path, hidden_layer: int = 1) -> None:
    """``hidden_layer`` is the thinker's layer whose input the talker gets."""
    extra = {
        "image_token": "<|image_pad|>",
        "audio_token": "<|audio_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
    }
    ids = write_byte_tokenizer(
        folder, [*SPECIALS, *ROLES], chat_template=None, extra_special_tokens=extra
    )
    _write_model(folder, ids, hidden_layer)
    write_json(
        folder / "generation_config.json",
        {
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "do_sample": False,
        },
    )
    _write_processor(folder)


def _write_model(folder: Path, ids: dict[str, int], hidden_layer: int) -> None:
    from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration

    config = Qwen3OmniMoeConfig(
        thinker_config=_thinker(ids, layers=hidden_layer + 2),
        talker_config=_talker(ids, hidden_layer),
        code2wav_config=_code2wav(),
        enable_audio_output=True,
        im_start_token_id=ids["<|im_start|>"],
        im_end_token_id=ids["<|im_end|>"],
        tts_pad_token_id=ids["<tts_pad>"],
        tts_bos_token_id=ids["<tts_text_bos>"],
        tts_eos_token_id=ids["<tts_text_eod>"],
        system_token_id=ids["system"],
        user_token_id=ids["user"],
        assistant_token_id=ids["assistant"],
    )
    model = Qwen3OmniMoeForConditionalGeneration(config).to(torch.bfloat16)
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            continue
        if ".experts." in name:
            torch.nn.init.normal_(weight, std=0.02)  # the talker's come uninitialised
        elif any(part in name for part in ("embed", "lm_head", "codec_head")):
            torch.nn.init.normal_(weight, std=0.3)  # else every step picks the same token
        elif name.startswith(("code2wav.decoder", "code2wav.upsample")):
            # Else the sound is all but silent, and endpoints that compare packets take one for
            # the repetition of another.
            torch.nn.init.kaiming_normal_(weight, nonlinearity="linear")
    # Never among the likeliest codes: the talker speaks until its token limit, always as long. The
    # engine takes the tokenizer's end for the talker's too.
    for end in (CODEC_EOS, ids["<|im_end|>"]):
        torch.nn.init.zeros_(model.talker.codec_head.weight[end])
    model.save_pretrained(folder)


def _rope() -> dict[str, Any]:
    return {
        "rope_type": "default",
        "rope_theta": 1000000,
        "mrope_section": [8, 4, 4],
        "mrope_interleaved": True,
    }


def _decoder(layers: int, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 128,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 8192,
        "rope_parameters": _rope(),
        "moe_intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "norm_topk_prob": True,
        "mlp_only_layers": [],
    }


def _placeholders(ids: dict[str, int]) -> dict[str, Any]:
    return {
        "audio_token_id": ids["<|audio_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "audio_start_token_id": ids["<|audio_start|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "position_id_per_seconds": 13,
    }


def _thinker(ids: dict[str, int], layers: int) -> dict[str, Any]:
    audio = {
        "num_mel_bins": 128,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "d_model": 32,
        "output_dim": WIDTH,
        "downsample_hidden_size": 16,
        "n_window": 50,
        "n_window_infer": 800,
        "max_source_positions": 1500,
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 2304,
        "image_size": 768,
        "apply_vit_abs_pos_embed": True,
        "deepstack_visual_indexes": [0],
    }
    return {
        "audio_config": audio,
        "vision_config": vision,
        "text_config": {**_decoder(layers, VOCABULARY), "tie_word_embeddings": False},
        "user_token_id": ids["user"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "audio_end_token_id": ids["<|audio_end|>"],
        **_placeholders(ids),
    }


def _talker(ids: dict[str, int], hidden_layer: int) -> dict[str, Any]:
    code_predictor = {
        "vocab_size": CODEBOOK,
        "hidden_size": WIDTH,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "num_code_groups": CODE_GROUPS,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000},
    }
    return {
        "code_predictor_config": code_predictor,
        "text_config": {**_decoder(2, 3072), "shared_expert_intermediate_size": 64},
        "num_code_groups": CODE_GROUPS,
        "thinker_hidden_size": WIDTH,
        "accept_hidden_layer": hidden_layer,
        "spatial_merge_size": 2,
        "codec_pad_id": 2148,
        "codec_bos_id": 2149,
        "codec_eos_token_id": CODEC_EOS,
        "codec_nothink_id": 2155,
        "codec_think_bos_id": 2156,
        "codec_think_eos_id": 2157,
        "speaker_id": {"chelsie": 2301, "ethan": 2302, "aiden": 2303},
        **_placeholders(ids),
    }


def _code2wav() -> dict[str, Any]:
    return {
        "codebook_size": CODEBOOK,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "sliding_window": 72,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_quantizers": CODE_GROUPS,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "decoder_dim": 64,
        "max_position_embeddings": 8000,
    }


def _write_processor(folder: Path) -> None:
    from transformers import (
        AutoTokenizer,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        Qwen3OmniMoeProcessor,
        WhisperFeatureExtractor,
    )

    pixels = {
        "patch_size": 16,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "min_pixels": 1024,
        "max_pixels": 65536,
    }
    Qwen3OmniMoeProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        video_processor=Qwen2VLVideoProcessor(**pixels),
        feature_extractor=WhisperFeatureExtractor(
            feature_size=128, sampling_rate=16000, hop_length=160, n_fft=400, chunk_length=30
        ),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        chat_template=CHATML,
    ).save_pretrained(folder)
