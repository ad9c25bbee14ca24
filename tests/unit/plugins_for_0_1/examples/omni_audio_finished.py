from vllm_omni_metrics_plugin.hooks import AudioFinished, hookimpl


@hookimpl
def omni_audio_finished(event: AudioFinished) -> None:
    if event.duration_seconds is None or event.generation_seconds is None:
        return  # what was not measured is None, never 0
    factor = event.generation_seconds / event.duration_seconds
    print(f"{event.duration_seconds:.1f} s of speech, {'smooth' if factor < 1 else 'with gaps'}")
