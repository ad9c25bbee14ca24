"""A plain text model (Qwen2), for a vLLM server without vLLM-Omni's stages."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from testbed.models.files import VOCABULARY, write_byte_tokenizer


def write(folder: Path) -> None:
    ids = write_byte_tokenizer(folder, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        eos_token_id=ids["<|im_end|>"],
        pad_token_id=ids["<|endoftext|>"],
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
