from vllm_omni_metrics_plugin.hooks import TransferFailed, hookimpl


@hookimpl
def omni_transfer_failed(event: TransferFailed) -> None:
    print(f"{event.connector} could not {event.operation} {event.key}: {event.reason}")
