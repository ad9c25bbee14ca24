from vllm_omni_metrics_plugin.hooks import StageSubmitted, hookimpl


@hookimpl
def omni_stage_submitted(event: StageSubmitted) -> None:
    if event.parent_request_id is None:  # else an extra request of guided generation
        print(f"{event.request_id} went to replica {event.replica} of stage {event.stage}")
