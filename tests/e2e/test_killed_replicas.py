"""``kill -9`` of stage engines under load; the tests of this file build on one another."""

from __future__ import annotations

import functools
import threading
import time

from testbed.clients import audio
from testbed.clients.audio import Answer
from testbed.server import Server
from tests.e2e.conftest import assert_engines_idle, failures, is_idle, observing, outcomes
from tests.otlp import Parent, Receiver
from vllm_omni_metrics_plugin.scrape import scrape


def _load(server: Server, parents: list[Parent]) -> list[functools.partial[Answer]]:
    return [
        functools.partial(
            audio.speech, server.url, tokens=120, stream="audio", traceparent=parent.header
        )
        for parent in parents
    ]


def _killer(server: Server, replica: str) -> threading.Thread:
    """Kills a replica of the second stage in the middle of its speech."""

    def frames() -> float:
        seen = scrape(server.url)
        return seen.sum("vllm:omni_audio_frames_total", stage="1", replica=replica)

    before = frames()

    def kill() -> None:
        while frames() == before:
            time.sleep(0.02)
        server.kill_replica(1, int(replica))

    return threading.Thread(target=kill, daemon=True)


def test_killed_replica_under_load_loses_no_request(
    mortal_server: Server, collector: Receiver
) -> None:
    killer = _killer(mortal_server, "1")
    parents = [Parent() for _ in range(12)]
    with observing(mortal_server) as seen:
        killer.start()
        answers = audio.together(_load(mortal_server, parents), at_once=6)
    killer.join()

    accepted = [answer for answer in answers if answer.accepted]
    counted = outcomes(seen.gained)
    assert sum(counted.values()) == len(accepted), (counted, answers)
    assert counted.get("error", 0) > 0, "the kill hit nobody"
    assert counted.get("length", 0) + counted.get("stop", 0) > 0, "nobody was served"
    assert failures(seen.gained) == {"dead_replica": counted["error"]}
    assert is_idle(seen.after)
    for family in ("vllm:omni_stage_info", "vllm:num_requests_running"):
        members = {(labels["stage"], labels["replica"]) for labels in seen.after.label_sets(family)}
        assert members == {("0", "0"), ("1", "0")}, "the dead one is no longer exposed"
    assert seen.gained.sum("vllm:omni_e2e_request_latency_seconds_count") == sum(
        count for reason, count in counted.items() if reason in ("stop", "length")
    )
    assert_engines_idle(mortal_server)
    traces = [
        collector.trace(parent.began)
        for parent, answer in zip(parents, answers, strict=True)
        if answer.accepted
    ]
    for trace in traces:
        trace.assert_is_a_tree()
        failed = trace.root.attributes["vllm_omni.outcome"] == "error"
        assert (trace.root.status, trace.root.message) == (
            (2, "dead_replica") if failed else (0, "")
        )
        dead = [stage for stage in trace.named("omni.stage") if stage.status == 2]
        where = [(s.attributes["vllm_omni.stage.id"], s.message) for s in dead]
        assert where in ([], [(1, "dead_replica")])
    assert sum(trace.root.status == 2 for trace in traces) == counted["error"]


def test_survivor_serves_on_under_its_own_label(mortal_server: Server) -> None:
    with observing(mortal_server) as seen:
        answer = audio.speech(mortal_server.url, tokens=10)

    assert answer.status == 200
    assert seen.gained.by("vllm:omni_audio_frames_total", "replica") == {"0": answer.samples}


def test_requests_to_a_dead_stage_are_errors_and_leave_nothing_behind(
    mortal_server: Server,
) -> None:
    killer = _killer(mortal_server, "0")
    with observing(mortal_server) as seen:
        killer.start()
        answers = audio.together(_load(mortal_server, [Parent() for _ in range(4)]), at_once=4)
        killer.join()
        answers += [audio.speech(mortal_server.url, tokens=10) for _ in range(3)]

    accepted = [answer for answer in answers if answer.accepted]
    counted = outcomes(seen.gained)
    assert sum(counted.values()) == len(accepted), (counted, answers)
    assert set(counted) <= {"error", "stop", "length"}, counted
    assert counted["error"] >= 3, "none can be served any more"
    assert failures(seen.gained) == {"dead_replica": counted["error"]}
    assert is_idle(seen.after)
