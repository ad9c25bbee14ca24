from vllm_omni_metrics_plugin.hooks import EventsDropped, hookimpl


@hookimpl
def omni_events_dropped(event: EventsDropped) -> None:
    print(f"{event.count} event(s) of the stage engines are missing from all counts")
