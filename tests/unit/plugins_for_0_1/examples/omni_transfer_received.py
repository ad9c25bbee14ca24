from vllm_omni_metrics_plugin.hooks import TransferReceived, hookimpl


@hookimpl
def omni_transfer_received(event: TransferReceived) -> None:
    if event.in_flight_seconds is None:
        print(f"stage {event.to_stage} got {event.key}")  # in a stage engine's own process
    else:
        print(f"{event.key} waited {1000 * event.in_flight_seconds:.1f} ms to be fetched")
