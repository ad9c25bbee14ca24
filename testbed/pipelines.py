"""What the launcher can serve: a tiny model and how its stages are deployed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from testbed.install.environments import model
from testbed.paths import TESTBED


@dataclass(frozen=True)
class Pipeline:
    """``deploy`` is None where the command line alone says how to run it."""

    name: str
    model: Path
    deploy: Path | None
    #: The stage of which there may be several replicas.
    replicated_stage: int = 0
    max_replicas: int = 1
    #: False for a plain vLLM server.
    omni: bool = True
    arguments: tuple[str, ...] = ()
    #: Packages that stand in for those that its engine would import.
    stand_ins: Path | None = None


try:
    #: Of the environment that this runs in.
    _RELEASE = version("vllm-omni")
except PackageNotFoundError:  # there can be no server, but what starts one can be imported
    _RELEASE = ""

PIPELINES = {
    pipeline.name: pipeline
    for pipeline in (
        Pipeline("tts", model("qwen3-tts", _RELEASE), TESTBED / "deploy" / "tts.yaml", 1, 4),
        Pipeline("omni", model("qwen3-omni", _RELEASE), TESTBED / "deploy" / "omni.yaml"),
        # The same model in sessions of speech in and out at once; loud is speech to its detector.
        Pipeline(
            "duplex",
            model("qwen3-omni", _RELEASE),
            TESTBED / "deploy" / "duplex.yaml",
            stand_ins=TESTBED / "detector",
        ),
        Pipeline(
            "llm",
            model("llm", _RELEASE),
            None,
            omni=False,
            arguments=("--max-model-len", "1024", "--enforce-eager", "--max-num-seqs", "4"),
        ),
        # vLLM-Omni reads no deploy file for image models of one stage. Convolutions in bfloat16,
        # its own choice, take ten times as long on CPU.
        Pipeline(
            "image",
            model("qwen-image", _RELEASE),
            None,
            arguments=("--dtype", "float32", "--enforce-eager"),
        ),
        Pipeline("video", model("wan", _RELEASE), TESTBED / "deploy" / "video.yaml", 0, 4),
        # An AR stage before a diffusion stage: by KV cache, and by a payload.
        Pipeline("bagel", model("bagel", _RELEASE), TESTBED / "deploy" / "bagel.yaml", 1, 2),
        Pipeline("writer", model("writer-image", _RELEASE), TESTBED / "deploy" / "writer.yaml"),
    )
}


def check_replicas(pipeline: Pipeline, replicas: int) -> None:
    """Raise ValueError for more replicas than the pipeline runs with."""
    if not 1 <= replicas <= pipeline.max_replicas:
        raise ValueError(
            f"pipeline {pipeline.name} runs with 1 to {pipeline.max_replicas} replicas, "
            f"not {replicas}"
        )


def deployment(
    pipeline: Pipeline, replicas: int, async_chunk: bool, *, others: int = 1
) -> dict[str, Any]:
    """The deploy file's content; raises ValueError for too many replicas.

    There are ``replicas`` of the stage that is usually replicated, and ``others`` of the others.
    """
    check_replicas(pipeline, replicas)
    assert pipeline.deploy is not None
    content: dict[str, Any] = yaml.safe_load(pipeline.deploy.read_text())
    # Some pipelines can hand on nothing but the whole.
    content["async_chunk"] = async_chunk and content.get("async_chunk", True)
    device = 0
    for stage in content["stages"]:
        count = replicas if stage["stage_id"] == pipeline.replicated_stage else others
        if count > 1:
            stage["num_replicas"] = count
        stage["devices"] = ",".join(str(device + n) for n in range(count))
        device += count
    return content
