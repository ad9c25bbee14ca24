from vllm_omni_metrics_plugin.hooks import TurnPlayed, hookimpl


@hookimpl
def omni_turn_played(event: TurnPlayed) -> None:
    made = event.acknowledged + event.discarded + event.unknown
    print(f"{event.acknowledged} of {made} samples were played, {event.discarded} were not")
