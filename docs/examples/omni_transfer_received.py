from vllm_omni_metrics_plugin.hooks import TransferReceived, hookimpl


@hookimpl
def omni_transfer_received(event: TransferReceived) -> None:
    if event.in_flight_seconds is None:  # between hosts, or the sender's report was lost
        print(f"stage {event.to_stage} got {event.key}")
    else:
        print(f"{event.key} waited {1000 * event.in_flight_seconds:.1f} ms to be fetched")
