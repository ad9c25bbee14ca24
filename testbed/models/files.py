"""Writing the pieces of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

#: Pads the vocabulary to this many entries.
VOCABULARY = 320

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if 'image' in c['type'] %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'video' in c['type'] %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'audio' in c['type'] %}<|audio_start|><|audio_pad|><|audio_end|>"
    "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


def write_weights(
    path: Path, weights: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None
) -> None:
    """``dtype`` converts the floating-point ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ready = {
        name: (weight.to(dtype) if dtype and weight.is_floating_point() else weight)
        .detach()
        .clone()
        .contiguous()
        for name, weight in weights.items()
    }
    save_file(ready, path, metadata={"format": "pt"})


def write_byte_tokenizer(
    folder: Path, specials: Sequence[str], chat_template: str | None = CHATML, **config: Any
) -> dict[str, int]:
    """A tokenizer of the 256 bytes, then ``specials``, then padding; returns the specials' ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={b: i for i, b in enumerate(bytes_)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    padding = range(VOCABULARY - tokenizer.get_vocab_size())
    tokenizer.add_tokens([AddedToken(f"<|extra_{i}|>", normalized=False) for i in padding])

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": 32768,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        **config,
    }
    if chat_template is not None:
        settings["chat_template"] = chat_template
    write_json(folder / "tokenizer_config.json", settings)
    # Loaders of the slow kind read these two instead.
    write_json(folder / "vocab.json", {b: i for i, b in enumerate(bytes_)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return {special: tokenizer.token_to_id(special) for special in specials}
