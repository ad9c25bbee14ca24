from vllm_omni_metrics_plugin.hooks import StreamFinished, hookimpl


@hookimpl
def omni_stream_finished(event: StreamFinished) -> None:
    for player in event.players:
        silence, buffer = player.stall_seconds, player.buffer_seconds
        print(f"{event.ending}: {silence:.1f} s of silence with a buffer of {buffer:g} s")
