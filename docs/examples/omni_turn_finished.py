from vllm_omni_metrics_plugin.hooks import TurnFinished, hookimpl


@hookimpl
def omni_turn_finished(event: TurnFinished) -> None:
    if event.heard_latency_seconds is not None:
        print(
            f"{event.outcome}: the user waited {event.heard_latency_seconds:.2f} s to be answered"
        )
