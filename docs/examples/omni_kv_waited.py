from vllm_omni_metrics_plugin.hooks import KvWaited, hookimpl


@hookimpl
def omni_kv_waited(event: KvWaited) -> None:
    print(f"{event.connector} took the KV cache of {event.request_id} after {event.wait_seconds} s")
