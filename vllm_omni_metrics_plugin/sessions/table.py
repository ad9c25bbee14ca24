"""The sessions that are open in one engine."""

from __future__ import annotations

from vllm_omni_metrics_plugin.hooks import SessionRefused
from vllm_omni_metrics_plugin.requests import OpenRequests
from vllm_omni_metrics_plugin.sessions.session import Session


class Sessions:
    """By the engine's id."""

    def __init__(self, requests: OpenRequests, model_name: str) -> None:
        """``requests`` are all that are open, which the turns are among."""
        self.model_name = model_name
        self._requests = requests
        self._by_id: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, session_id: str) -> Session | None:
        """None of one that is not open."""
        return self._by_id.get(session_id)

    def open(self, session_id: str) -> None:
        """A client opened a session."""
        if session_id not in self._by_id:
            self._by_id[session_id] = Session(self._requests, session_id, self.model_name)

    def refuse(self, code: str) -> None:
        """A session was not opened; ``code`` is the engine's."""
        if self._requests.hooks.omni_session_refused.listeners:
            self._requests.hooks.omni_session_refused(
                SessionRefused(model_name=self.model_name, code=code)
            )

    def close(self, session_id: str, reason: str) -> None:
        """A session is over; nothing if it was before."""
        session = self._by_id.pop(session_id, None)
        if session is not None:
            session.end(reason)

    def close_all(self, reason: str) -> None:
        """The engine ends."""
        for session_id in list(self._by_id):
            self.close(session_id, reason)
