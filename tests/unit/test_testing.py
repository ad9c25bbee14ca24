"""The kit for authors of hook plugins: it shows them what a server would hide."""

from __future__ import annotations

import threading
from typing import Any, get_type_hints

import msgspec
import pytest

from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    Event,
    MediaPacket,
    RequestArrived,
    RequestFinished,
    hookimpl,
    plugins,
)
from vllm_omni_metrics_plugin.testing import (
    EVENTS,
    HookHarness,
    Recorder,
    make_event,
    speech_request,
)


class Listening:
    """Does ``what`` with every finished request."""

    def __init__(self, what: Any) -> None:
        self.what = what

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        self.what(event)


class ListeningSlowly(Listening):
    @hookimpl(slow=True)
    def omni_request_finished(self, event: RequestFinished) -> None:
        self.what(event)


@pytest.mark.parametrize("kind", EVENTS.values(), ids=lambda kind: kind.__name__)
def test_every_event_can_be_made_with_values_of_the_right_types(kind: type[Event]) -> None:
    event = make_event(kind)
    for name, hint in get_type_hints(kind).items():
        if hint is not Any:
            msgspec.convert(getattr(event, name), hint, from_attributes=True)


@pytest.mark.parametrize("kind", EVENTS.values(), ids=lambda kind: kind.__name__)
def test_fields_that_a_test_gives_are_kept(kind: type[Event]) -> None:
    for name in kind.__struct_fields__:
        given = object()
        assert getattr(make_event(kind, **{name: given}), name) is given


def test_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="seconds"):
        make_event(RequestFinished, seconds=1.0)


def test_speech_request_tells_one_consistent_story(omni_hooks: HookHarness) -> None:
    heard = omni_hooks.register(Recorder())
    omni_hooks.fire(*speech_request("r", packets=4, samples=1200, sample_rate=24000))
    assert len({event.request_id for event in heard.events}) == 1  # type: ignore[attr-defined]
    assert isinstance(heard.events[0], RequestArrived)
    packets = heard.of(MediaPacket)
    assert [packet.index for packet in packets] == [0, 1, 2, 3]
    audio = heard.only(AudioFinished)
    assert audio.samples == sum(packet.samples for packet in packets)
    assert audio.duration_seconds == pytest.approx(0.2)
    assert audio.first_packet_seconds == packets[0].since_arrival_seconds
    last = heard.only(RequestFinished)
    assert last is heard.events[-1]
    assert last.end_to_end_seconds == pytest.approx(packets[-1].since_arrival_seconds)


@pytest.mark.parametrize("outcome", ["abort", "error", "rejected"])
def test_speech_request_that_is_cut_short_has_no_complete_audio(outcome: str) -> None:
    story = speech_request(outcome=outcome)
    assert not [event for event in story if isinstance(event, AudioFinished)]
    assert story[-1].outcome == outcome  # type: ignore[attr-defined]


def test_speech_request_that_is_not_streamed_has_no_first_packet_time() -> None:
    [audio] = [e for e in speech_request(streamed=False) if isinstance(e, AudioFinished)]
    assert audio.first_packet_seconds is None


@pytest.mark.parametrize("kind", [Listening, ListeningSlowly])
@pytest.mark.parametrize("error", [AssertionError("seen"), RuntimeError("seen"), SystemExit(3)])
def test_what_a_plugin_raises_fails_its_test(
    omni_hooks: HookHarness, kind: type[Listening], error: BaseException
) -> None:
    def fail(event: Event) -> None:
        raise error

    omni_hooks.register(kind(fail))
    with pytest.raises(type(error)):
        omni_hooks.fire(make_event(RequestFinished))
    omni_hooks.fire(make_event(RequestArrived))


def test_plugin_that_calls_its_own_hook_fails_its_test(omni_hooks: HookHarness) -> None:
    hook = omni_hooks.hooks.omni_request_finished
    omni_hooks.register(Listening(hook))
    with pytest.raises(RecursionError, match="omni_request_finished"):
        omni_hooks.fire(make_event(RequestFinished))


def test_slow_plugin_has_heard_the_event_when_fire_returns(omni_hooks: HookHarness) -> None:
    heard: list[Event] = []
    omni_hooks.register(ListeningSlowly(heard.append))
    event = make_event(RequestFinished)
    omni_hooks.fire(event)
    assert heard == [event]


def test_slow_plugin_that_hangs_fails_its_test(omni_hooks: HookHarness) -> None:
    go_on = threading.Event()
    omni_hooks.register(ListeningSlowly(lambda event: go_on.wait(60) and None))
    with pytest.raises(TimeoutError):
        omni_hooks.fire(make_event(RequestFinished), seconds=0.01)
    go_on.set()


def test_what_happens_on_the_stage_is_not_heard_by_the_process(
    hooks: Any, omni_hooks: HookHarness, recorder: Recorder
) -> None:
    omni_hooks.fire(make_event(RequestFinished))
    hooks.omni_request_arrived(make_event(RequestArrived))
    assert [type(event) for event in recorder.events] == [RequestArrived]


def test_hooks_of_a_harness_are_its_own_and_can_be_given_to_others(
    hooks: Any, omni_hooks: HookHarness
) -> None:
    class Greeter:
        def __init__(self, hooks: Any) -> None:
            self.finished = hooks.omni_request_finished

        def greet(self, event: RequestFinished) -> None:
            if self.finished.listeners:
                self.finished(event)

    greeter = Greeter(omni_hooks.hooks)
    greeter.greet(make_event(RequestFinished))
    heard = omni_hooks.register(Recorder())
    event = make_event(RequestFinished)
    greeter.greet(event)
    assert heard.events == [event]
    assert omni_hooks.hooks is omni_hooks.registry.hooks is not plugins.hooks
    assert omni_hooks.registry.names == ["Recorder"]


def test_two_harnesses_do_not_hear_each_other(omni_hooks: HookHarness) -> None:
    heard = omni_hooks.register(Recorder())
    with HookHarness() as other:
        other.fire(make_event(RequestFinished))
    assert heard.events == []
