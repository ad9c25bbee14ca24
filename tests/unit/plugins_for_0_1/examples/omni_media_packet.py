from vllm_omni_metrics_plugin.hooks import MediaPacket, hookimpl


@hookimpl
def omni_media_packet(event: MediaPacket) -> None:
    if event.index == 0 and event.streamed:
        print(f"first {event.modality} after {event.since_arrival_seconds:.3f} s")
