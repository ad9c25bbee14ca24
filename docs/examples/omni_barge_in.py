from vllm_omni_metrics_plugin.hooks import BargeIn, hookimpl


@hookimpl
def omni_barge_in(event: BargeIn) -> None:
    if event.reaction_seconds is not None and event.reaction_seconds > 0.2:
        print(f"it took {event.reaction_seconds:.1f} s to stop talking")
