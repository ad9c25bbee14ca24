from vllm_omni_metrics_plugin.hooks import VoiceDetection, hookimpl


@hookimpl
def omni_voice_detection(event: VoiceDetection) -> None:
    print(f"{event.session_id} is {'listened to' if event.active else 'listened to no more'}")
