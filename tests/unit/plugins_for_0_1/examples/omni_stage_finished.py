from vllm_omni_metrics_plugin.hooks import StageFinished, hookimpl


@hookimpl
def omni_stage_finished(event: StageFinished) -> None:
    if event.generation_seconds and event.tokens_out:
        speed = event.tokens_out / event.generation_seconds
        print(f"stage {event.stage}: {speed:.1f} tokens/s, {event.finish_reason}")
