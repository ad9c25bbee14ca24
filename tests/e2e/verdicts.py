"""The objectives that real servers judge by, and what their verdicts have to agree with.

The limits are between the usual bounds of their families, so that each has a bucket of its own.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.scrape import Scrape

OBJECTIVES = """
[[objective]]
name = "everything"
target = 0.9
limits = { e2e_request_latency_seconds = 1.234, request_queue_time_seconds = 0.0123 }

[[objective]]
name = "sound"
target = 0.9
limits = { audio_duration_seconds = 1.234, audio_rtf = 0.876 }

[[objective]]
name = "streams"
target = 0.9
[objective.limits]
audio_ttfp_seconds = 0.1234
audio_underrun_seconds = 0.0456
audio_longest_stall_seconds = 0.0567

[[objective]]
name = "pictures"
target = 0.9
limits = { image_ttfp_seconds = 0.321, image_generation_time_seconds = 0.321 }

[[objective]]
name = "films"
target = 0.9
limits = { video_generation_time_seconds = 1.234, video_rtf = 1.987 }
"""
#: By objective, the limits that every sample of their families is judged by.
LIMITS = {
    "everything": {"e2e_request_latency_seconds": 1.234, "request_queue_time_seconds": 0.0123},
    "sound": {"audio_duration_seconds": 1.234, "audio_rtf": 0.876},
    "streams": {
        "audio_ttfp_seconds": 0.1234,
        "audio_underrun_seconds": 0.0456,
        "audio_longest_stall_seconds": 0.0567,
    },
    "pictures": {"image_ttfp_seconds": 0.321, "image_generation_time_seconds": 0.321},
    "films": {"video_generation_time_seconds": 1.234, "video_rtf": 1.987},
}
#: The verdicts of an objective are about the first player alone.
_WHERE = {"audio_longest_stall_seconds": {"player": "0"}}


def verdicts(seen: Scrape, objective: str) -> dict[str, float]:
    counted = {
        verdict: seen.sum("vllm:omni_slo_requests_total", objective=objective, verdict=verdict)
        for verdict in ("good", "bad", "excluded", "unknown")
    }
    return {verdict: count for verdict, count in counted.items() if count}


def violations(seen: Scrape, objective: str, limit: str) -> float:
    return seen.sum("vllm:omni_slo_violations_total", objective=objective, limit=limit)


def assert_verdicts_agree(seen: Scrape, about_all: str | None = None) -> None:
    """Each request has one verdict, and each limit its bucket; ``seen`` of a server at rest.

    ``about_all``: the objective that is about every request of this server, beside everything.
    """
    ended = seen.by("vllm:omni_requests_success_total", "finished_reason")
    for objective in filter(None, ("everything", about_all)):
        judged = verdicts(seen, objective)
        assert sum(judged.values()) == sum(ended.values()), (objective, judged, ended)
        assert violations(seen, objective, "error") == ended.get("error", 0), objective
        left = ended.get("abort", 0) + ended.get("rejected", 0)
        assert judged.get("excluded", 0) <= left, (objective, judged, ended)
        complete = sum(ended.values()) - left - ended.get("error", 0)
        assert judged.get("good", 0) + judged.get("unknown", 0) <= complete, (judged, ended)
    left_stalled = seen.sum("vllm:omni_audio_streams_total", ending="left_stalled")
    assert violations(seen, "streams", "left_stalled") == left_stalled
    streamed = sum(verdicts(seen, "streams").values())
    assert streamed >= seen.sum("vllm:omni_audio_streams_total")
    for objective, limits in LIMITS.items():
        for stem, limit in limits.items():
            family, where = f"vllm:omni_{stem}", _WHERE.get(stem, {})
            kept = seen.sum(f"{family}_bucket", le=str(limit), **where)
            beyond = seen.sum(f"{family}_count", **where) - kept
            # What a whole websocket heard is told when its requests are judged already.
            unknown = verdicts(seen, objective).get("unknown", 0)
            broken = violations(seen, objective, stem)
            assert beyond - unknown <= broken <= beyond, (objective, stem)
