"""What is known of each session of speech in and out at once, and of its turns.

For whoever asks about requests a turn is one, so what is in ``requests/`` holds for it. Nothing
here knows the engine; all that happens in its sessions happens in one thread.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.sessions.session import Cause, Session
from vllm_omni_metrics_plugin.sessions.table import Sessions
from vllm_omni_metrics_plugin.sessions.voice import Piece

__all__ = ["Cause", "Piece", "Session", "Sessions"]
