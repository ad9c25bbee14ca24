"""The samples of tokens: what goes into the pipeline, and what its stages make."""

from __future__ import annotations

from vllm_omni_metrics_plugin.exporters.prometheus.children import Labels, PerReplica
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import ReplicaJoined, StageFinished, hookimpl

#: Prompts enter here; what later stages take are the outputs of earlier ones.
_FIRST_STAGE = 0
_PROMPT = "prompt_tokens_total"
_GENERATION = "generation_tokens_total"


class TokenChildren:
    """The label children of one stage replica."""

    __slots__ = ("generation", "prompt")

    def __init__(self, families: Families, labels: Labels) -> None:
        self.generation = families[_GENERATION].labels(*labels)
        first = labels[1] == str(_FIRST_STAGE)
        self.prompt = families[_PROMPT].labels(*labels) if first else None


class TokenSamples:
    """Counts tokens when a stage has finished a request; a diffusion engine has none."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._missing = families.missing
        self._replicas = PerReplica(TokenChildren, families)

    def expect(self, event: ReplicaJoined) -> None:
        """Have the series of a replica stand at 0."""
        if event.stage_type == "diffusion":
            return
        self._replicas.expect(event)
        first = (_PROMPT,) if event.stage == _FIRST_STAGE else ()
        self._families.expect_missing(_GENERATION, *first)

    @hookimpl
    def omni_stage_finished(self, event: StageFinished) -> None:
        if event.model_name is None or event.diffusion is not None:
            return
        children = self._replicas[event.model_name, event.stage, event.replica]
        if event.tokens_out is None:
            self._missing("no_tokens", _GENERATION)
        else:
            children.generation.inc(event.tokens_out)
        if children.prompt is None:
            return
        if event.tokens_in is None:
            self._missing("no_tokens", _PROMPT)
        else:
            children.prompt.inc(event.tokens_in)
