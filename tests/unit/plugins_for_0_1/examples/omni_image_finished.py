from vllm_omni_metrics_plugin.hooks import ImageFinished, hookimpl


@hookimpl
def omni_image_finished(event: ImageFinished) -> None:
    print(f"{event.images} image(s), {sum(event.pixels) / 1e6:.2f} megapixels")
