from vllm_omni_metrics_plugin.hooks import StageEnded, hookimpl


@hookimpl
def omni_stage_ended(event: StageEnded) -> None:
    if event.started_at is not None and event.ended_at is not None:
        executed = event.ended_at - event.started_at
        print(f"stage {event.stage} executed {event.request_id} for {executed:.2f} s")
