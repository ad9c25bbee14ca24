from vllm_omni_metrics_plugin.hooks import SessionRefused, hookimpl


@hookimpl
def omni_session_refused(event: SessionRefused) -> None:
    if event.code == "resource_exhausted":
        print(f"{event.model_name} has as many conversations as it may have")
