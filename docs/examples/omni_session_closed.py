from vllm_omni_metrics_plugin.hooks import SessionClosed, hookimpl


@hookimpl
def omni_session_closed(event: SessionClosed) -> None:
    print(f"{event.turns} turns in {event.duration_seconds:.0f} s, ended by: {event.reason}")
