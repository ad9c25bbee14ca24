from vllm_omni_metrics_plugin.hooks import SessionOpened, hookimpl


@hookimpl
def omni_session_opened(event: SessionOpened) -> None:
    print(f"{event.model_name} has a conversation more: {event.session_id}")
