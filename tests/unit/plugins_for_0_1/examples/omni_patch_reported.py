from vllm_omni_metrics_plugin.hooks import PatchReported, hookimpl


@hookimpl
def omni_patch_reported(event: PatchReported) -> None:
    if event.status in ("skipped", "failed"):
        print("this engine differs:", event.target, event.reason)
    else:
        print(event.name, "is", event.status)
