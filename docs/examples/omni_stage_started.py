from vllm_omni_metrics_plugin.hooks import StageStarted, hookimpl


@hookimpl
def omni_stage_started(event: StageStarted) -> None:
    print(f"replica {event.replica} of stage {event.stage} began with {event.request_id}")
