from vllm_omni_metrics_plugin.hooks import AudioFinished, hookimpl


@hookimpl
def omni_audio_finished(event: AudioFinished) -> None:
    if event.rtf is None:
        return  # what was not measured is None, never 0
    print(f"{event.duration_seconds:.1f} s of speech, {'smooth' if event.rtf < 1 else 'with gaps'}")
