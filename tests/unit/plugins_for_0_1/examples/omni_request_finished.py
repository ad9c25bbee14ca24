from vllm_omni_metrics_plugin.hooks import RequestFinished, hookimpl


@hookimpl(slow=True)  # what writes to a disk or a network does not belong into the server's thread
def omni_request_finished(event: RequestFinished) -> None:
    print(f"{event.request_id}: {event.outcome} after {event.end_to_end_seconds:.1f} s", flush=True)
