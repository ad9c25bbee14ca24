"""A batch script that listens to its own engine: no server, no /metrics, the same hooks.

    VLLM_OMNI_METRICS=1 python batch.py MODEL "first prompt" "second prompt"

Prints a line for each request as it ends, and what the batch as a whole did.
"""

from __future__ import annotations

import argparse
import os

# Before the engine is made: it loads its plugins then, and this one only when asked to.
os.environ.setdefault("VLLM_OMNI_METRICS", "1")

from vllm_omni.entrypoints.omni import Omni

from vllm_omni_metrics_plugin.hooks import AudioFinished, RequestFinished, hookimpl, plugins

#: How Qwen's models are spoken to; the server does it by the model's own chat template.
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


class BatchReport:
    """Adds up what a batch produced."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.audio_seconds = 0.0

    @hookimpl
    def omni_audio_finished(self, event: AudioFinished) -> None:
        if event.duration_seconds is not None:
            self.audio_seconds += event.duration_seconds

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        self.outcomes[event.outcome] = self.outcomes.get(event.outcome, 0) + 1
        print(f"request {event.outcome} after {event.end_to_end_seconds:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate offline and listen to the engine.")
    parser.add_argument("model")
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--deploy-config")
    parser.add_argument("--modalities", nargs="+", default=["text", "audio"])
    options = parser.parse_args()

    report = BatchReport()
    plugins.register(report)
    deploy = {"deploy_config": options.deploy_config} if options.deploy_config else {}
    omni = Omni(model=options.model, **deploy)
    try:
        prompts = [
            {"prompt": CHAT.format(text), "modalities": options.modalities}
            for text in options.prompts
        ]
        outputs = omni.generate(prompts, use_tqdm=False)
    finally:
        omni.close()
    print(f"{len(outputs)} outputs, {report.audio_seconds:.2f} s of audio, {report.outcomes}")


if __name__ == "__main__":
    main()
