"""BAGEL, text to image: a Qwen2 thinker, and a diffusion stage that takes its KV cache."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from testbed.models.files import VOCABULARY, write_byte_tokenizer, write_json, write_weights

WIDTH = 64
INNER = 128
LAYERS = 2
#: Of the vision tower.
VISION = 32
PATCH = 14
SIDE = 4
#: The engine fixes the rest of the autoencoder: 16 channels, each 8 pixels wide.
CHANNELS = 16
DOWNSAMPLE = 8
LATENT_PATCH = 2
#: The engine's own is 128, of 84 million weights; the platform's workers make it this one.
AUTOENCODER_WIDTH = 32
#: Images up to 512 x 512, which the engine warms up with.
LATENTS = 32

SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|fim_middle|>"),
)


def write(folder: Path) -> None:
    ids = write_byte_tokenizer(folder, SPECIALS, tokenizer_class="Qwen2Tokenizer")
    _write_configs(folder, ids)
    write_weights(folder / "ema.safetensors", _weights(), torch.bfloat16)
    write_weights(folder / "ae.safetensors", _autoencoder(), torch.bfloat16)


def _llm(ids: dict[str, int]) -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "tie_word_embeddings": False,
        "qk_norm": True,
    }


def _vision() -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": VISION,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_channels": 3,
        "image_size": SIDE * PATCH,
        "patch_size": PATCH,
        "vision_use_head": False,
    }


def _write_configs(folder: Path, ids: dict[str, int]) -> None:
    llm, vision = _llm(ids), _vision()
    write_json(folder / "llm_config.json", llm)
    write_json(folder / "vit_config.json", vision)
    write_json(
        folder / "config.json",
        {
            "model_type": "bagel",
            "architectures": ["BagelForConditionalGeneration"],
            "torch_dtype": "bfloat16",
            "visual_gen": True,
            "visual_und": True,
            "llm_config": llm,
            "vit_config": vision,
            "vae_config": {"z_channels": CHANNELS, "downsample": DOWNSAMPLE},
            "latent_patch_size": LATENT_PATCH,
            "max_latent_size": LATENTS,
            "vit_max_num_patch_per_side": SIDE,
            "connector_act": "gelu_pytorch_tanh",
            "interpolate_pos": False,
            "timestep_shift": 1.0,
        },
    )
    write_json(
        folder / "generation_config.json",
        {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]},
    )
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "SiglipImageProcessor",
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "size": {"height": SIDE * PATCH, "width": SIDE * PATCH},
        },
    )


def _weights() -> dict[str, torch.Tensor]:
    from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

    ids = dict.fromkeys(SPECIALS, 0)
    language = Qwen2ForCausalLM(Qwen2Config(**_llm(ids)))
    torch.nn.init.normal_(language.model.embed_tokens.weight, std=0.3)
    torch.nn.init.normal_(language.lm_head.weight, std=0.3)
    weights: dict[str, torch.Tensor] = {}
    for name, weight in language.state_dict().items():
        weights[f"language_model.{name}"] = weight
        twin = _generation_twin(name)
        if twin is not None:
            weights[f"language_model.{twin}"] = weight
    for layer in range(LAYERS):
        for norm in ("q_norm", "k_norm", "q_norm_moe_gen", "k_norm_moe_gen"):
            weights[f"language_model.model.layers.{layer}.self_attn.{norm}.weight"] = torch.ones(
                WIDTH // 2
            )
    vision = SiglipVisionModel(SiglipVisionConfig(**_vision()))
    for name, weight in vision.state_dict().items():
        weights[f"vit_model.vision_model.{name.removeprefix('vision_model.')}"] = weight
    latent = LATENT_PATCH**2 * CHANNELS
    for name, layer in {
        "connector.fc1": torch.nn.Linear(VISION, WIDTH),
        "connector.fc2": torch.nn.Linear(WIDTH, WIDTH),
        "time_embedder.mlp.0": torch.nn.Linear(256, WIDTH),
        "time_embedder.mlp.2": torch.nn.Linear(WIDTH, WIDTH),
        "vae2llm": torch.nn.Linear(latent, WIDTH),
        "llm2vae": torch.nn.Linear(WIDTH, latent),
    }.items():
        weights[f"{name}.weight"], weights[f"{name}.bias"] = layer.weight, layer.bias
    weights["vit_pos_embed.pos_embed"] = 0.02 * torch.randn(SIDE**2, WIDTH)
    weights["latent_pos_embed.pos_embed"] = 0.02 * torch.randn(LATENTS**2, WIDTH)
    return weights


def _generation_twin(name: str) -> str | None:
    """The name of the weight that tokens of the image use instead."""
    for part in ("q_proj", "k_proj", "v_proj", "o_proj", "mlp", "layernorm", "model.norm"):
        at = name.find(f"{part}.")
        if at >= 0:
            at += len(part)
            return f"{name[:at]}_moe_gen{name[at:]}"
    return None


def _autoencoder() -> dict[str, torch.Tensor]:
    from vllm_omni.diffusion.models.bagel.autoencoder import AutoEncoder
    from vllm_omni.diffusion.models.bagel.pipeline_bagel import default_ae_params

    small = dataclasses.replace(default_ae_params(), ch=AUTOENCODER_WIDTH)
    return AutoEncoder(small).state_dict()
