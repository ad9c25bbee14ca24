from vllm_omni_metrics_plugin.hooks import VoiceFailed, hookimpl


@hookimpl
def omni_voice_failed(event: VoiceFailed) -> None:
    print(f"{event.session_id} is not listened to: {event.reason}")
