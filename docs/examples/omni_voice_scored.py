from vllm_omni_metrics_plugin.hooks import VoiceScored, hookimpl


@hookimpl
def omni_voice_scored(event: VoiceScored) -> None:
    frames, seconds = len(event.inference_seconds), sum(event.inference_seconds)
    print(f"{frames} frames in {1000 * seconds:.1f} ms, speech {event.probability:.0%}")
