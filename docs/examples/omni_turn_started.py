from vllm_omni_metrics_plugin.hooks import TurnStarted, hookimpl


@hookimpl
def omni_turn_started(event: TurnStarted) -> None:
    print(f"{event.session_id} is answered by request {event.request_id}")
