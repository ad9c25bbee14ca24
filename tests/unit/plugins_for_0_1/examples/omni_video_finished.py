from vllm_omni_metrics_plugin.hooks import VideoFinished, hookimpl


@hookimpl
def omni_video_finished(event: VideoFinished) -> None:
    if event.duration_seconds is None or event.generation_seconds is None:
        return  # without a frame rate nobody knows how long it plays
    print(f"{event.generation_seconds / event.duration_seconds:.1f} s of work for 1 s of video")
