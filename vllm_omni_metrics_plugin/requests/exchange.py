"""What one client was answered, as far as it decides how the requests behind it ended.

An exchange is an HTTP request with its response, a websocket, or a job that outlives its response.
All of it happens in the event loop's thread.
"""

from __future__ import annotations

from typing import Literal, Protocol

from vllm_omni_metrics_plugin.hooks.events import Transport
from vllm_omni_metrics_plugin.requests.utterance import Utterance

#: How ``generate`` was over: by itself, closed or cancelled by whoever called it, or by an
#: exception of its own.
Ending = Literal["ended", "closed", "raised"]


class Answered(Protocol):
    """A request, to its exchange."""

    ending: Ending | None
    #: Its part of the response is an error.
    failed: bool
    #: The client was told of an error while ``generate`` went on.
    error_event: bool
    #: The client was told that it stopped, as it had asked for.
    stopped: bool

    def settle(self) -> None:
        """Its outcome is certain."""


class Exchange:
    """The facts, and the requests that end with it."""

    __slots__ = (
        "_open",
        "_waiting",
        "completed",
        "failed",
        "kind",
        "left",
        "over",
        "status",
        "utterance",
    )

    def __init__(self, kind: Transport) -> None:
        self.kind = kind
        #: HTTP status of the response; None before it, and where there is none.
        self.status: int | None = None
        #: The last byte was handed over while the client was there.
        self.completed = False
        #: The client left before the last byte, or whoever served it was cancelled.
        self.left = False
        #: The application raised, or the client was told of an error within its response.
        self.failed = False
        #: Nothing more happens on it.
        self.over = False
        #: Of a websocket whose requests are parts of one: the present one.
        self.utterance: Utterance | None = None
        #: Whose ``generate`` goes on.
        self._open: list[Answered] = []
        #: Of a websocket: whose ``generate`` is over, and whose client was not told of its end.
        self._waiting: list[Answered] = []

    @property
    def has_requests(self) -> bool:
        """Whether one of them was not settled, as far as the exchange decides it."""
        return bool(self._open or self._waiting)

    def attach(self, request: Answered) -> None:
        """The engine is called for ``request`` to answer this client."""
        self._settle_waiting()
        self._open.append(request)

    def generated(self, request: Answered) -> None:
        """The request's ``generate`` is over; it is settled now or by what follows."""
        if self.kind != "websocket":
            if self.over:  # and it was settled then
                request.settle()
            return
        if request in self._open:
            self._open.remove(request)
        if request.ending == "closed" and request.error_event:
            request.failed = True
        if self.over or self.left or request.failed or request.ending == "raised":
            request.settle()
        else:
            self._waiting.append(request)

    def tells(self, *, error: bool) -> None:
        """A websocket's client gets an event, or the server closes the websocket."""
        if error:
            for request in self._open:
                request.error_event = True
            for request in self._waiting:
                request.failed = True
        if self.utterance is not None:
            self.utterance.tells(error=error)
        if self._waiting:
            self._settle_waiting()

    def completes_utterance(self) -> None:
        """A websocket's client is told that its input was answered; the next one is another."""
        utterance, self.utterance = self.utterance, None
        if utterance is not None:
            utterance.completes()

    def stops(self) -> None:
        """A websocket's client is told that it stopped what it had asked for."""
        for request in (*self._open, *self._waiting):
            request.stopped = True

    def leaves(self) -> None:
        """The client left, which is nothing after the last byte."""
        if not self.completed:
            self.left = True
            if self.utterance is not None:
                self.utterance.leaves()
            self._settle_waiting()

    def completes(self) -> None:
        """The last byte is handed over."""
        if not self.left:
            self.completed = True

    def ends(self) -> None:
        """Nothing more happens on it; whose ``generate`` goes on all the same ends as well."""
        self.over = True
        if self.utterance is not None:
            self.utterance.breaks_off(failed=self.failed)
        self._settle_waiting()
        if self.kind != "websocket":
            requests, self._open = self._open, []
            for request in requests:
                request.settle()
        self._open.clear()

    def _settle_waiting(self) -> None:
        requests, self._waiting = self._waiting, []
        for request in requests:
            request.settle()
