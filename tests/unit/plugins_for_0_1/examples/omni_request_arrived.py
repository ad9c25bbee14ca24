from vllm_omni_metrics_plugin.hooks import RequestArrived, hookimpl


@hookimpl
def omni_request_arrived(event: RequestArrived) -> None:
    print(f"{event.external_request_id} is {event.request_id} inside the engine")
