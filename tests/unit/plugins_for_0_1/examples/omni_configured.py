from vllm_omni_metrics_plugin.hooks import Configured, hookimpl


@hookimpl
def omni_configured(event: Configured) -> None:
    if event.role == "server":  # the engine's other processes load hook plugins, too
        print("watching vllm-omni", event.versions["vllm-omni"])
