from vllm_omni_metrics_plugin.hooks import SessionAttachment, hookimpl


@hookimpl
def omni_session_attachment(event: SessionAttachment) -> None:
    print(f"the client of {event.session_id} is {'back' if event.attached else 'gone'}")
