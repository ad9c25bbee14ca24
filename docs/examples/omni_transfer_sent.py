from vllm_omni_metrics_plugin.hooks import TransferSent, hookimpl


@hookimpl
def omni_transfer_sent(event: TransferSent) -> None:
    milliseconds = 1000 * event.duration_seconds
    print(f"{event.size_bytes} bytes for stage {event.to_stage} in {milliseconds:.1f} ms")
