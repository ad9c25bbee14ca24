from vllm_omni_metrics_plugin.hooks import RequestFinished, hookimpl


@hookimpl(slow=True)  # what writes to a disk or a network does not belong into the server's thread
def omni_request_finished(event: RequestFinished) -> None:
    seconds = sum(audio.duration_seconds or 0.0 for audio in event.audio)
    tokens = sum(stage.tokens_out or 0 for stage in event.stages)
    text = f"{event.endpoint} {event.outcome}: {seconds:.1f} s of audio, {tokens} tokens"
    print(text, flush=True)
