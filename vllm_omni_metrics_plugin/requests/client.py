"""Who a request comes from, as far as HTTP says it."""

from __future__ import annotations

from typing import NamedTuple

from vllm_omni_metrics_plugin.hooks.events import Transport
from vllm_omni_metrics_plugin.request_headers import Headers


class Client(NamedTuple):
    """Where it called, with which headers, in which trace of its own."""

    #: The template of the route; of a job, the one that ordered it. None if it is not known.
    endpoint: str | None = None
    #: What it is answered over; None where that is no server.
    transport: Transport | None = None
    #: As in the headers of W3C Trace Context; None without the first of them, and where nobody
    #: traces.
    traceparent: str | None = None
    tracestate: str | None = None
    #: Those that its events carry, by the operator's choice.
    headers: Headers = ()


#: Nothing is known of it, as of whoever runs a script.
UNKNOWN = Client()
