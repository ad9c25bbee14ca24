from vllm_omni_metrics_plugin.hooks import TransferSent, hookimpl


@hookimpl
def omni_transfer_sent(event: TransferSent) -> None:
    print(f"{event.size_bytes} bytes for stage {event.to_stage} in {1000 * event.seconds:.1f} ms")
