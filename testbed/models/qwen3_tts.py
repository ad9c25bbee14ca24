"""Qwen3-TTS, 12 Hz, custom voice: a talker and its speech tokenizer.

The weights are random, but not when the speech ends: only where the talker is given the end of its
text step by step (``non_streaming_mode: false``), one step for each character. Given the whole text
at once it speaks until a token limit stops it. So every request has the length that was asked for.
"""

from __future__ import annotations

from pathlib import Path

import torch

from testbed.models.files import VOCABULARY, write_byte_tokenizer, write_json, write_weights

WIDTH = 64
HEAD = 32
HEADS = 2
KEY_VALUE_HEADS = 1
LAYERS = 2
INNER = 128
#: The talker's codec vocabulary and its special ids are the real model's: the engine knows them.
TALKER_VOCABULARY = 3072
CODEBOOK = 2048
CODE_GROUPS = 4
CODEC_EOS = 2150
#: How far the end of the text outweighs everything else that a step is given.
END_OF_TEXT_SCALE = 30.0

Weights = dict[str, torch.Tensor]


def write(folder: Path) -> None:
    _write_talker(folder)
    _write_speech_tokenizer(folder / "speech_tokenizer")


def _write_talker(folder: Path) -> None:
    ids = write_byte_tokenizer(
        folder,
        [
            *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
            *("<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>"),
            *("<|audio_start|>", "<|audio_end|>"),
        ],
    )
    shape = {
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "head_dim": HEAD,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "num_code_groups": CODE_GROUPS,
    }
    code_predictor = {
        **shape,
        "model_type": "qwen3_tts_talker_code_predictor",
        "vocab_size": CODEBOOK,
        "num_hidden_layers": 1,
        "max_position_embeddings": 4096,
        "attention_bias": False,
        "use_sliding_window": False,
    }
    talker = {
        **shape,
        "model_type": "qwen3_tts_talker",
        "vocab_size": TALKER_VOCABULARY,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": 8192,
        "rope_scaling": {"interleaved": True, "mrope_section": [8, 4, 4], "rope_type": "default"},
        "text_hidden_size": WIDTH,
        "text_vocab_size": VOCABULARY,
        "code_predictor_config": code_predictor,
        "position_id_per_seconds": 13,
        "codec_pad_id": 2148,
        "codec_bos_id": 2149,
        "codec_eos_token_id": CODEC_EOS,
        "codec_think_id": 2154,
        "codec_nothink_id": 2155,
        "codec_think_bos_id": 2156,
        "codec_think_eos_id": 2157,
        "codec_language_id": {"english": 2050, "chinese": 2055},
        "spk_id": {"vivian": 3065, "ryan": 3061},
        "spk_is_dialect": {"vivian": False, "ryan": False},
    }
    speaker_encoder = {
        "mel_dim": 128,
        "enc_dim": WIDTH,
        "enc_channels": [16, 16, 16, 16, 48],
        "enc_kernel_sizes": [5, 3, 3, 3, 1],
        "enc_dilations": [1, 2, 3, 4, 1],
        "enc_attention_channels": 8,
        "enc_res2net_scale": 4,
        "enc_se_channels": 8,
        "sample_rate": 24000,
    }
    write_json(
        folder / "config.json",
        {
            "architectures": ["Qwen3TTSForConditionalGeneration"],
            "model_type": "qwen3_tts",
            "tokenizer_type": "qwen3_tts_tokenizer_12hz",
            "tts_model_size": "0b6",
            "tts_model_type": "custom_voice",
            "torch_dtype": "bfloat16",
            "im_start_token_id": ids["<|im_start|>"],
            "im_end_token_id": ids["<|im_end|>"],
            "assistant_token_id": ids["<|im_start|>"],
            "tts_pad_token_id": ids["<tts_pad>"],
            "tts_bos_token_id": ids["<tts_text_bos>"],
            "tts_eos_token_id": ids["<tts_text_eod>"],
            "talker_config": talker,
            "speaker_encoder_config": speaker_encoder,
        },
    )
    write_json(
        folder / "generation_config.json",
        {
            "do_sample": True,
            "temperature": 0.9,
            "top_k": 50,
            "top_p": 1.0,
            "repetition_penalty": 1.05,
            "max_new_tokens": 2048,
        },
    )
    weights = _talker_weights()
    _end_with_the_text(weights, ids["<tts_text_eod>"])
    # The engine takes the tokenizer's end for the talker's too. In the real model no code has that
    # number; here one has, and is made unlikely enough never to be sampled.
    weights["talker.codec_head.weight"][ids["<|im_end|>"]] = 0.0
    write_weights(folder / "model.safetensors", weights, torch.bfloat16)


def _talker_weights() -> Weights:
    weights: Weights = {}
    for number in range(LAYERS):
        weights |= _layer(f"talker.model.layers.{number}.")
    weights["talker.model.norm.weight"] = torch.ones(WIDTH)
    weights["talker.model.codec_embedding.weight"] = _random(TALKER_VOCABULARY, WIDTH, spread=0.5)
    weights["talker.model.text_embedding.weight"] = _random(VOCABULARY, WIDTH, spread=0.5)
    for number in (1, 2):
        projection = f"talker.text_projection.linear_fc{number}"
        weights[f"{projection}.weight"] = _random(WIDTH, WIDTH, spread=0.1)
        weights[f"{projection}.bias"] = torch.zeros(WIDTH)
    weights["talker.codec_head.weight"] = _random(TALKER_VOCABULARY, WIDTH, spread=0.3)
    weights |= _layer("talker.code_predictor.model.layers.0.")
    weights["talker.code_predictor.model.norm.weight"] = torch.ones(WIDTH)
    for group in range(CODE_GROUPS - 1):
        weights[f"talker.code_predictor.model.codec_embedding.{group}.weight"] = _random(
            CODEBOOK, WIDTH, spread=0.5
        )
        weights[f"talker.code_predictor.lm_head.{group}.weight"] = _random(
            CODEBOOK, WIDTH, spread=0.3
        )
    return weights


def _end_with_the_text(weights: Weights, end_of_text: int) -> None:
    """Make the talker end its speech at the step that gets the end of the text, and only there."""
    embedding = weights["talker.model.text_embedding.weight"][end_of_text]
    embedding *= END_OF_TEXT_SCALE
    first, second = (
        weights[f"talker.text_projection.linear_fc{number}.weight"] for number in (1, 2)
    )
    end = torch.nn.functional.normalize(second @ torch.nn.functional.silu(first @ embedding), dim=0)
    weights["talker.codec_head.weight"][CODEC_EOS] = 3.0 * end
    # Every code points a little away from it, so that no other step can sample the end.
    for name, weight in weights.items():
        if "codec_embedding" in name:
            weight -= torch.outer(weight @ end + 0.5, end)


def _layer(prefix: str) -> Weights:
    return {
        f"{prefix}self_attn.q_proj.weight": _random(HEADS * HEAD, WIDTH),
        f"{prefix}self_attn.k_proj.weight": _random(KEY_VALUE_HEADS * HEAD, WIDTH),
        f"{prefix}self_attn.v_proj.weight": _random(KEY_VALUE_HEADS * HEAD, WIDTH),
        f"{prefix}self_attn.o_proj.weight": _random(WIDTH, HEADS * HEAD),
        f"{prefix}self_attn.q_norm.weight": torch.ones(HEAD),
        f"{prefix}self_attn.k_norm.weight": torch.ones(HEAD),
        f"{prefix}mlp.gate_proj.weight": _random(INNER, WIDTH),
        f"{prefix}mlp.up_proj.weight": _random(INNER, WIDTH),
        f"{prefix}mlp.down_proj.weight": _random(WIDTH, INNER),
        f"{prefix}input_layernorm.weight": torch.ones(WIDTH),
        f"{prefix}post_attention_layernorm.weight": torch.ones(WIDTH),
    }


def _random(*shape: int, spread: float = 0.05) -> torch.Tensor:
    return torch.randn(*shape) * spread


def _write_speech_tokenizer(folder: Path) -> None:
    encoder = {
        "model_type": "mimi",
        "hidden_size": 32,
        "num_filters": 4,
        "num_residual_layers": 1,
        "upsampling_ratios": [8, 6, 5, 4],
        "codebook_size": CODEBOOK,
        "codebook_dim": 16,
        "vector_quantization_hidden_dimension": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 64,
        "num_quantizers": CODE_GROUPS,
        "num_semantic_quantizers": 1,
        "sliding_window": 250,
        "sampling_rate": 24000,
        "audio_channels": 1,
        "frame_rate": 12.5,
        "upsample_groups": 32,
    }
    decoder = {
        "codebook_size": CODEBOOK,
        "codebook_dim": 32,
        "hidden_size": 32,
        "latent_dim": 32,
        "decoder_dim": 64,
        "max_position_embeddings": 8000,
        "rope_theta": 10000,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 64,
        "attention_bias": False,
        "sliding_window": 72,
        "hidden_act": "silu",
        "layer_scale_initial_scale": 0.01,
        "rms_norm_eps": 1e-5,
        "num_quantizers": CODE_GROUPS,
        "num_semantic_quantizers": 1,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
    }
    write_json(
        folder / "config.json",
        {
            "architectures": ["Qwen3TTSTokenizerV2Model"],
            "model_type": "qwen3_tts_tokenizer_12hz",
            "encoder_config": encoder,
            "decoder_config": decoder,
            "encoder_valid_num_quantizers": CODE_GROUPS,
            "input_sample_rate": 24000,
            "output_sample_rate": 24000,
            "decode_upsample_rate": 1920,
            "encode_downsample_rate": 1920,
        },
    )
    write_json(
        folder / "configuration.json", {"framework": "pytorch", "task": "feature-extraction"}
    )
    write_json(
        folder / "preprocessor_config.json",
        {
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": 1,
            "sampling_rate": 24000,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
            "chunk_length_s": None,
            "overlap": None,
        },
    )
    write_weights(folder / "model.safetensors", _speech_tokenizer_weights(folder.parent))


def _speech_tokenizer_weights(model: Path) -> Weights:
    import vllm_omni  # noqa: F401  its patches have to come before its model modules
    from vllm_omni.model_executor.models.qwen3_tts.tokenizer_12hz import (
        configuration_qwen3_tts_tokenizer_v2 as configuration,
    )
    from vllm_omni.model_executor.models.qwen3_tts.tokenizer_12hz import (
        modeling_qwen3_tts_tokenizer_v2 as modeling,
    )

    config = configuration.Qwen3TTSTokenizerV2Config.from_pretrained(
        str(model), subfolder="speech_tokenizer"
    )
    decoder = modeling.Qwen3TTSTokenizerV2Decoder._from_config(config.decoder_config)
    encoder = modeling.Qwen3TTSTokenizerV2Encoder._from_config(config.encoder_config)
    weights: Weights = {f"decoder.{name}": weight for name, weight in decoder.state_dict().items()}
    for name, weight in weights.items():
        if name.endswith(("embedding_sum", "embed_sum")):
            weight.normal_()  # else every code decodes to the same silence
    return weights | {f"encoder.{name}": weight for name, weight in encoder.state_dict().items()}
