from vllm_omni_metrics_plugin.hooks import VideoFinished, hookimpl


@hookimpl
def omni_video_finished(event: VideoFinished) -> None:
    if event.rtf is not None:  # without a frame rate nobody knows how long it plays
        print(f"{event.rtf:.1f} s of work for 1 s of video")
