from vllm_omni_metrics_plugin.hooks import Configured, hookimpl


@hookimpl
def omni_configured(event: Configured) -> None:
    print("watching vllm-omni", event.versions["vllm-omni"])
