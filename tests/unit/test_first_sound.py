"""When the listener of a stream hears its first sound, looked for beside the event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.unit.feed import Feed
from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    MediaPacket,
    RequestFinished,
    StreamFinished,
)
from vllm_omni_metrics_plugin.media import sound as sounds
from vllm_omni_metrics_plugin.media.onset import Onset
from vllm_omni_metrics_plugin.requests import (
    Exchange,
    OpenRequest,
    OpenRequests,
    StreamedInput,
    Utterance,
)
from vllm_omni_metrics_plugin.requests.background import Background

np = pytest.importorskip("numpy")

VOCODER = 1
#: The window that first has enough of a sound in it begins up to 10 ms before the sound.
EARLY = 0.010
#: The thread that looks for sounds is tested here.
BESIDE_THE_LOOP = True
SECONDS = 30.0


@pytest.fixture
def requests(hooks: Any, recorder: Any, clock: Any) -> Iterator[OpenRequests]:
    assert recorder.events == [], "somebody listens before it begins"
    table = OpenRequests(hooks)
    yield table
    table.background.close()


@pytest.fixture
def request_(requests: OpenRequests, clock: Any) -> OpenRequest:
    return begin(requests, clock.now)


def begin(requests: OpenRequests, at: float | None, delivery: Any = "delta") -> OpenRequest:
    request = requests.begin("a", "a", "tiny", at)
    request.delivered = True
    request.submitting(VOCODER, delivery, makes_audio=True)
    requests.submitted("a", VOCODER, 3, None)
    return request


def audio(silence: float, length: float = 1.0, rate: int = 24_000) -> Any:
    """So many seconds of silence before a tone; ``length`` in all, at least the silence."""
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(round((length - silence) * rate)) / rate)
    return np.concatenate((np.zeros(round(silence * rate)), tone))


def packet(request: OpenRequest, sound: Any, rate: int | None = 24_000) -> None:
    rates = {} if rate is None else {"sr": rate}
    request.audio_output([{"audio": sound, **rates}], VOCODER, 3, finished=False)


def play(request: OpenRequest, sound: Any, clock: Any, rate: int = 24_000) -> None:
    """In packets of 80 ms, as fast as they are played."""
    size = round(0.08 * rate)
    for start in range(0, sound.shape[-1], size):
        packet(request, sound[..., start : start + size], rate)
        clock.now += 0.04


def finished(request: OpenRequest, recorder: Any, error: BaseException | None = None) -> Any:
    request.end(error)
    table = request.requests
    assert isinstance(table, OpenRequests)
    assert table.background.flush(SECONDS)
    return recorder.only(StreamFinished)


def pcm(sound: Any) -> Any:
    return (sound * 32_767).astype(np.int16)


FORMS: dict[str, Callable[[Any], Any]] = {
    "floats": lambda sound: sound.astype(np.float32),
    "int16": pcm,
    "stereo": lambda sound: np.stack((np.zeros_like(sound), sound)),
    "offset": lambda sound: 0.25 - sound,
    "noise": lambda sound: sound + np.random.default_rng(7).normal(0, 0.003, sound.shape),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
@pytest.mark.parametrize("silence", [0.0, 0.3, 2.9, 4.0])
def test_silence_before_the_first_sound_is_measured_on_the_way(
    request_: OpenRequest, recorder: Any, clock: Any, silence: float, rate: int, form: str
) -> None:
    clock.now += 0.5
    play(request_, FORMS[form](audio(silence, silence + 0.4, rate)), clock, rate)
    stream = finished(request_, recorder)
    if silence > 3:
        assert stream.leading_silence_seconds is stream.first_audible_seconds is None
        assert stream.unheard == "no_audible_sound"
        return
    assert stream.unheard is None
    assert silence - EARLY <= stream.leading_silence_seconds <= silence + 0.001
    assert stream.first_audible_seconds == pytest.approx(0.5 + stream.leading_silence_seconds)


@pytest.mark.parametrize("delivery", ["cumulative", "delta"])
def test_what_an_output_repeats_is_looked_at_once(
    requests: OpenRequests, recorder: Any, clock: Any, delivery: str
) -> None:
    request = begin(requests, clock.now, delivery)
    whole = audio(0.5)
    for end in range(2_400, len(whole) + 1, 2_400):
        packet(request, whole[0 if delivery == "cumulative" else end - 2_400 : end])
    stream = finished(request, recorder)
    assert stream.leading_silence_seconds == pytest.approx(0.5, abs=EARLY)


# What the listener waits for


def test_stalls_of_the_first_player_up_to_the_sound_delay_it_and_later_ones_do_not(
    request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    clock.now += 0.2
    sound = audio(0.3, 2.0)
    packet(request_, sound[:2_400])
    clock.now += 0.6  # 0.1 s of it were played, then nothing for 0.5 s
    packet(request_, sound[2_400:24_000])
    clock.now += 3.0  # 0.9 s of it were played, the sound among them
    packet(request_, sound[24_000:])
    stream = finished(request_, recorder)
    assert stream.players[0].stall_seconds == pytest.approx(0.5 + 2.1)
    expected = 0.2 + 0.5 + stream.leading_silence_seconds
    assert stream.first_audible_seconds == pytest.approx(expected)


def test_buffer_of_the_first_player_is_waited_for(hooks: Any, recorder: Any, clock: Any) -> None:
    requests = OpenRequests(hooks, players=(0.5, 0.0))
    request = begin(requests, clock.now)
    sound = audio(0.3, 2.0)
    for start, wait in ((0, 0.2), (9_600, 0.3), (19_200, 0.0)):
        packet(request, sound[start : start + 9_600])
        clock.now += wait
    stream = finished(request, recorder)
    requests.background.close()
    # The second packet fills the buffer.
    expected = 0.2 + stream.leading_silence_seconds
    assert stream.first_audible_seconds == pytest.approx(expected)


def test_player_that_starts_when_the_stream_is_over_is_waited_for(
    hooks: Any, recorder: Any, clock: Any
) -> None:
    requests = OpenRequests(hooks, players=(5.0,))
    request = begin(requests, clock.now)
    packet(request, audio(0.3))
    clock.now += 0.7
    stream = finished(request, recorder)
    requests.background.close()
    assert stream.first_audible_seconds == pytest.approx(0.7 + stream.leading_silence_seconds)


@pytest.mark.parametrize(("after", "unheard"), [(0.2, "left_before_sound"), (0.4, None)])
def test_listener_who_leaves_before_the_sound_does_not_hear_it(
    request_: OpenRequest, recorder: Any, clock: Any, after: float, unheard: str | None
) -> None:
    packet(request_, audio(0.3))
    clock.now += after
    stream = finished(request_, recorder, GeneratorExit())
    assert stream.unheard == unheard
    assert stream.leading_silence_seconds == pytest.approx(0.3, abs=EARLY)
    assert (stream.first_audible_seconds is None) is (unheard is not None)


@pytest.mark.parametrize(
    ("error", "unheard"),
    [(GeneratorExit(), "left_before_sound"), (None, "no_audible_sound")],
    ids=["left", "complete"],
)
def test_short_stream_of_silence_has_no_sound(
    request_: OpenRequest, recorder: Any, error: BaseException | None, unheard: str
) -> None:
    packet(request_, np.zeros(24_000))
    assert finished(request_, recorder, error).unheard == unheard


def test_stream_without_audio_has_nothing_to_be_missed(
    request_: OpenRequest, recorder: Any
) -> None:
    stream = finished(request_, recorder, GeneratorExit())
    assert (stream.leading_silence_seconds, stream.unheard) == (None, None)


def test_wait_for_a_sound_begins_with_the_arrival(
    requests: OpenRequests, recorder: Any, clock: Any
) -> None:
    request = begin(requests, None)
    packet(request, audio(0.0))
    stream = finished(request, recorder)
    assert stream.leading_silence_seconds == 0
    assert (stream.first_audible_seconds, stream.unheard) == (None, "unknown_arrival")


@pytest.mark.parametrize(("input_seconds", "is_during"), [(0.2, False), (0.9, True), (None, True)])
def test_wait_for_a_sound_begins_with_the_end_of_a_streamed_input(
    requests: OpenRequests,
    recorder: Any,
    clock: Any,
    input_seconds: float | None,
    is_during: bool,
) -> None:
    streamed = StreamedInput()
    request = requests.begin("a", "a", "tiny", clock.now, streamed)
    request.delivered = True
    request.submitting(VOCODER, "delta", makes_audio=True)
    began = clock.now
    clock.now = began + 0.5
    packet(request, audio(0.0))
    streamed.ended_at = None if input_seconds is None else began + input_seconds
    stream = finished(request, recorder)
    assert stream.leading_silence_seconds == 0
    if is_during:
        assert (stream.first_audible_seconds, stream.unheard) == (None, "during_input")
    else:
        assert stream.first_audible_seconds == pytest.approx(0.3)


# What cannot be looked at


class OnDevice:
    """A tensor that says where it is, and waits for its device if anything else is read."""

    is_cpu = False
    shape = (24_000,)


@pytest.mark.parametrize(
    ("second", "rate", "unheard"),
    [
        (OnDevice(), 24_000, "on_device"),
        (np.zeros(24_000, dtype=bool), 24_000, "unknown_form"),
        (np.zeros(24_000), 16_000, "unknown_form"),
    ],
    ids=["device", "bool", "rate"],
)
def test_sound_that_cannot_be_looked_at_is_missing_and_says_why(
    request_: OpenRequest, recorder: Any, second: Any, rate: int, unheard: str
) -> None:
    packet(request_, np.zeros(24_000))
    packet(request_, second, rate)
    packet(request_, audio(0.0))
    stream = finished(request_, recorder)
    assert (stream.unheard, stream.leading_silence_seconds) == (unheard, None)
    assert stream.ending == "smooth"
    assert internal_errors.errors.counts() == {}


def test_rate_that_has_no_milliseconds_is_an_unknown_form(
    request_: OpenRequest, recorder: Any
) -> None:
    packet(request_, audio(0.0, rate=800), 800)
    assert finished(request_, recorder).unheard == "unknown_form"
    assert internal_errors.errors.counts() == {}


def test_sound_found_before_what_cannot_be_looked_at_holds(
    request_: OpenRequest, recorder: Any
) -> None:
    packet(request_, audio(0.3)[:9_600])
    packet(request_, OnDevice())
    assert finished(request_, recorder).leading_silence_seconds == pytest.approx(0.3, abs=EARLY)


@pytest.mark.parametrize("where", ["copying", "looking"])
def test_fault_of_ours_is_counted_and_the_packets_go_on(
    request_: OpenRequest, recorder: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    if where == "copying":
        monkeypatch.setattr(sounds, "_pieces", fails)
    else:
        monkeypatch.setattr(Onset, "add", fails)
    for _ in range(3):
        packet(request_, audio(0.0))
    stream = finished(request_, recorder)
    assert (stream.unheard, stream.ending) == ("internal_error", "smooth")
    assert [event.samples for event in recorder.of(MediaPacket)] == [24_000] * 3
    assert sum(internal_errors.errors.counts().values()) == 1


# Beside the event loop


@pytest.fixture
def busy(requests: OpenRequests) -> Iterator[threading.Event]:
    """Keeps the background busy until it is set."""
    over, begun = threading.Event(), threading.Event()
    requests.background.put(begun.set)
    requests.background.put(partial(over.wait, SECONDS))
    assert begun.wait(SECONDS)
    yield over
    over.set()


def test_end_waits_for_the_packets_of_its_stream_and_nobody_waits_for_it(
    request_: OpenRequest, requests: OpenRequests, recorder: Any, busy: threading.Event, clock: Any
) -> None:
    packet(request_, audio(0.3))
    clock.now += 0.5
    request_.end(None)
    assert requests.by_id == {}, "it is over all the same"
    assert recorder.of(AudioFinished) != []
    assert recorder.of(StreamFinished) == recorder.of(RequestFinished) == []
    clock.now += 5.0
    busy.set()
    assert requests.background.flush(SECONDS)
    stream, finished = recorder.events[-2:]
    assert stream.leading_silence_seconds == pytest.approx(0.3, abs=EARLY)
    assert finished.streams == (stream,)
    assert finished.end_to_end_seconds == pytest.approx(0.5), "what was looked at took no time"


def test_end_with_one_of_two_streams_looked_at_waits_for_the_other(
    request_: OpenRequest, requests: OpenRequests, recorder: Any
) -> None:
    packet(request_, audio(0.0))
    assert requests.background.flush(SECONDS)
    over = threading.Event()
    requests.background.put(partial(over.wait, SECONDS))
    request_.submitting(VOCODER + 1, "delta", makes_audio=True)
    other = [{"audio": audio(0.1), "sr": 24_000}]
    request_.audio_output(other, VOCODER + 1, 0, finished=False)
    request_.end(None)
    assert recorder.of(StreamFinished) == []
    over.set()
    assert requests.background.flush(SECONDS)
    silences = [stream.leading_silence_seconds for stream in recorder.of(StreamFinished)]
    assert silences == pytest.approx([0.0, 0.1], abs=EARLY)
    assert recorder.only(RequestFinished).streams == tuple(recorder.of(StreamFinished))


def test_utterance_waits_for_its_packets_and_its_request_does_not(
    requests: OpenRequests, recorder: Any, busy: threading.Event, clock: Any
) -> None:
    request = requests.begin("a", "a", "tiny", clock.now)
    exchange = Exchange("websocket")
    exchange.utterance = Utterance(requests)
    request.answers(exchange)
    request.submitting(VOCODER, "delta", makes_audio=True)
    requests.submitted("a", VOCODER, 3, None)
    packet(request, audio(0.3))
    request.end(None)
    exchange.tells(error=False)
    assert recorder.only(RequestFinished).streams == ()
    exchange.completes_utterance()
    assert recorder.of(StreamFinished) == []
    busy.set()
    assert requests.background.flush(SECONDS)
    assert recorder.only(StreamFinished).leading_silence_seconds == pytest.approx(0.3, abs=EARLY)


def test_stream_whose_packets_were_looked_at_ends_at_once_before_its_request(
    request_: OpenRequest, requests: OpenRequests, recorder: Any
) -> None:
    packet(request_, audio(0.0))
    assert requests.background.flush(SECONDS)
    requests.background.put(partial(threading.Event().wait, 0.2))  # for others
    request_.end(None)
    assert recorder.only(StreamFinished).leading_silence_seconds == 0
    kinds = [type(event) for event in recorder.events]
    assert kinds.index(StreamFinished) < kinds.index(RequestFinished)


def test_nothing_is_copied_once_the_sound_is_found(
    request_: OpenRequest, requests: OpenRequests
) -> None:
    packet(request_, audio(0.1))
    assert requests.background.flush(SECONDS)
    [stream] = request_.streams.values()
    assert stream.first_sound.is_settled
    packet(request_, audio(0.1))
    assert stream.first_sound._given == 1


def test_no_more_than_three_seconds_are_copied(
    request_: OpenRequest, requests: OpenRequests, busy: threading.Event
) -> None:
    for _ in range(5):
        packet(request_, np.zeros(24_000))
    [stream] = request_.streams.values()
    assert stream.first_sound._given == 3
    assert stream.first_sound.is_settled
    busy.set()


def test_packets_that_find_the_queue_full_leave_their_sound_missing(
    hooks: Any, recorder: Any, clock: Any
) -> None:
    requests = OpenRequests(hooks)
    requests.background = Background(capacity=2)
    over = threading.Event()
    requests.background.put(partial(over.wait, SECONDS))
    request = begin(requests, clock.now)
    for _ in range(6):
        packet(request, np.zeros(2_400))
    request.end(None)
    over.set()
    assert requests.background.flush(SECONDS)
    requests.background.close()
    assert recorder.only(StreamFinished).unheard == "queue_full"
    assert len(recorder.of(MediaPacket)) == 6


def test_background_outlives_what_it_calls_and_keeps_their_order() -> None:
    background = Background()
    made: list[object] = []

    def fails() -> None:
        made.append("fails")
        raise RuntimeError

    for call in (partial(made.append, 1), fails, partial(made.append, 2)):
        assert background.offer(call)
    assert background.flush(SECONDS)
    assert made == [1, "fails", 2]
    assert internal_errors.errors.counts() == {"working beside the event loop": 1}
    background.close()


def test_background_begins_anew_where_its_thread_is_gone() -> None:
    """As in a forked child."""
    background = Background()
    made: list[object] = []
    background.put(partial(made.append, 1))
    background.close()
    thread = background._thread
    assert thread is not None
    thread.join(SECONDS)
    background.put(partial(made.append, 2))
    assert background.flush(SECONDS)
    assert made == [1, 2]
    background.close()


# What is published


def test_silence_and_wait_for_the_sound_are_published(feed: Feed, exposed: Any) -> None:
    exposed.join(replica=3, makes=("audio",))
    labels = {"model_name": "tiny", "stage": "1", "replica": "3"}
    families = ("audio_first_audible_seconds", "audio_leading_silence_seconds")
    for family in families:
        assert exposed.value(f"{family}_count", **labels) == 0
    feed.finish_stream(leading_silence_seconds=0.3, first_audible_seconds=0.9)
    assert [exposed.value(f"{family}_sum", **labels) for family in families] == [0.9, 0.3]
    assert exposed.missing() == {}


@pytest.mark.parametrize("unheard", ["no_audible_sound", "left_before_sound", "during_input"])
def test_unheard_sound_is_missing_where_it_was_not_measured(
    feed: Feed, exposed: Any, unheard: str
) -> None:
    exposed.join(replica=3, makes=("audio",))
    silence = None if unheard == "no_audible_sound" else 0.3
    feed.finish_stream(leading_silence_seconds=silence, first_audible_seconds=None, unheard=unheard)
    expected = {("audio_first_audible_seconds", unheard): 1.0}
    if silence is None:
        expected["audio_leading_silence_seconds", unheard] = 1.0
    assert exposed.missing() == expected
