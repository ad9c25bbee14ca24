"""Where the first sound of one stream is, looked for on another thread than its packets come on.

The arithmetic costs more than a packet may take on the event loop, so a packet of the first 3 s is
copied there and looked at by the one thread of all streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks.events import Unheard
from vllm_omni_metrics_plugin.media.onset import LOOKED_AT_SECONDS, LOWEST_RATE, Onset
from vllm_omni_metrics_plugin.media.sound import NoCopyError, copy_sound, full_scale
from vllm_omni_metrics_plugin.requests.background import Background


class FirstSound:
    """Of one stream; keeps no packet, and no more than a copy of each until it was looked at."""

    __slots__ = ("_background", "_given", "_looked_at", "_onset", "_problem", "_rate", "is_settled")

    def __init__(self, background: Background) -> None:
        self._background = background
        self._onset: Onset | None = None
        self._rate = 0
        #: Packets that were copied, and those of them that were looked at; each has one writer.
        self._given = self._looked_at = 0
        self._problem: Unheard | None = None
        #: Nothing that is still to come is looked at.
        self.is_settled = False

    @property
    def seconds(self) -> float | None:
        """Of silence before the first sound; None while, or if, there is none."""
        return None if self._onset is None else self._onset.seconds

    @property
    def problem(self) -> Unheard | None:
        """Why none was found; None where the first 3 s were looked at, or all if it is less."""
        if self._problem is None and self._onset is not None and self._onset.is_decided:
            return "no_audible_sound"
        return self._problem

    def packet(
        self,
        payloads: Sequence[Mapping[str, Any]],
        samples: int,
        sample_rate: int | None,
        seconds: float,
    ) -> None:
        """So many new samples per channel come after ``seconds`` of the stream."""
        if self.is_settled:
            return
        try:
            if seconds >= LOOKED_AT_SECONDS:
                self.is_settled = True
            else:
                self._take(payloads, samples, sample_rate, seconds)
        except NoCopyError as error:
            self._give_up(error.reason)
        except Exception as error:
            self._give_up("internal_error")
            internal_errors.report("copying sound", error)

    @property
    def is_looked_at(self) -> bool:
        """Nothing that came waits to be looked at."""
        return self._given == self._looked_at

    def _take(
        self,
        payloads: Sequence[Mapping[str, Any]],
        samples: int,
        sample_rate: int | None,
        seconds: float,
    ) -> None:
        if sample_rate is None or sample_rate < LOWEST_RATE:
            return self._give_up("unknown_form")
        if self._onset is None:
            self._onset = Onset(sample_rate)
            self._rate = sample_rate
        elif sample_rate != self._rate:
            return self._give_up("unknown_form")
        most = round((LOOKED_AT_SECONDS - seconds) * sample_rate)
        sound = copy_sound(payloads, samples, most)
        if self._background.offer(partial(self._look_at, self._onset, sound)):
            self._given += 1
        else:
            self._give_up("queue_full")

    def _give_up(self, why: Unheard) -> None:
        self._problem = why
        self.is_settled = True

    def _look_at(self, onset: Onset, sound: Any) -> None:
        """On the other thread."""
        try:
            if self._problem != "internal_error":
                onset.add(full_scale(sound))
                if onset.is_decided:
                    self.is_settled = True
        except Exception as error:
            self._give_up("internal_error")
            internal_errors.report("looking for the first sound", error)
        finally:
            self._looked_at += 1
