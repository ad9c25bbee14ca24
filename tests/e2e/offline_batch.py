"""Runs examples/offline/batch.py as it is, listens along, and asks its engine for one thing more.

Prints JSON: what the script got, and what a listener heard.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

from vllm_omni.entrypoints.omni import Omni

from vllm_omni_metrics_plugin.hooks import AudioFinished, plugins
from vllm_omni_metrics_plugin.testing import Recorder

EXAMPLE = Path(__file__).parents[2] / "examples" / "offline" / "batch.py"

heard = Recorder()
got: list[dict[str, Any]] = []
generate = Omni.generate


def samples(output: Any) -> int:
    """As a script finds them: one tensor, or one for each chunk."""
    audio = None
    for completion in output.outputs:
        audio = (getattr(completion, "multimodal_output", None) or {}).get("audio")
    if audio is None:
        return 0
    return sum(int(chunk.numel()) for chunk in (audio if isinstance(audio, list) else [audio]))


def generate_and_look(self: Omni, prompts: Any, **kwargs: Any) -> Any:
    outputs = generate(self, prompts, **kwargs)
    for output in outputs:
        got.append({"id": output.request_id, "samples": samples(output)})
    abandoned = generate(self, prompts, py_generator=True, use_tqdm=False)
    next(abandoned)
    abandoned.close()
    return outputs


def main() -> None:
    plugins.register(heard, "heard")
    Omni.generate = generate_and_look
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    events = [
        {
            "hook": type(event).__name__,
            "id": getattr(event, "request_id", None),
            "outcome": getattr(event, "outcome", None),
            "frames": event.samples if isinstance(event, AudioFinished) else None,
        }
        for event in heard.events
    ]
    print("REPORT", json.dumps({"got": got, "events": events}), flush=True)


if __name__ == "__main__":
    main()
