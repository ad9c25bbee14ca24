"""Input that a client sends in pieces while its request is open, as live speech is."""

from __future__ import annotations

import time


class StreamedInput:
    """When its pieces reached the engine, in monotonic seconds; keeps none of them.

    The input has ended as soon as nothing more can come. Where the last piece is known to be the
    last, that is when the engine got it: what the engine does with it is no longer the client's
    time.
    """

    __slots__ = ("_piece_at", "_waited", "began_at", "ended_at")

    def __init__(self) -> None:
        #: The engine got the first piece; None before that.
        self.began_at: float | None = None
        #: None while the input goes on.
        self.ended_at: float | None = None
        self._piece_at: float | None = None
        self._waited = False

    def asked(self) -> None:
        """The engine asks for the next piece."""
        self._waited = False

    def waits(self) -> None:
        """The next piece is not there yet."""
        self._waited = True

    def passes_on(self) -> None:
        """The engine gets a piece."""
        self._piece_at = time.monotonic()
        if self.began_at is None:
            self.began_at = self._piece_at

    def ends(self) -> None:
        """Nothing more comes."""
        if self.ended_at is None:
            known_with_last = not self._waited and self._piece_at is not None
            self.ended_at = self._piece_at if known_with_last else time.monotonic()
            if self.began_at is None:
                self.began_at = self.ended_at
