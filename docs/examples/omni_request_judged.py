from vllm_omni_metrics_plugin.hooks import RequestJudged, hookimpl


@hookimpl
def omni_request_judged(event: RequestJudged) -> None:
    if event.verdict == "bad":
        print(f"{event.objective!r} was broken by {event.request_id}: {', '.join(event.broken)}")
