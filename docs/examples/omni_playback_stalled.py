from vllm_omni_metrics_plugin.hooks import PlaybackStalled, hookimpl


@hookimpl
def omni_playback_stalled(event: PlaybackStalled) -> None:
    print(f"{event.request_id} is silent after {event.played_seconds:.1f} s, on {event.replica}")
