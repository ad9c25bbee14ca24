"""The families of tokens."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.family import STAGE, Family

TOKENS: tuple[Family, ...] = (
    Family(
        stem="prompt_tokens_total",
        kind="counter",
        labels=STAGE,
        unit="tokens",
        help="Tokens of the prompts that the first stage finished, placeholders of media included.",
        event="omni_stage_finished",
        formula="+ tokens_in, of stage 0",
        missing=("no_tokens",),
    ),
    Family(
        stem="generation_tokens_total",
        kind="counter",
        labels=STAGE,
        unit="tokens",
        help="Tokens that each stage made for the requests that it finished: text, or a codec.",
        event="omni_stage_finished",
        formula="+ tokens_out",
        missing=("no_tokens",),
    ),
)
