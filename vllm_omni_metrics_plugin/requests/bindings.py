"""Which replicas were given a request, for events that come by another way than the request.

They may come when the request is long over, so the latest are kept, open or not.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

#: Requests that are remembered.
MOST_REQUESTS = 8_192


class Binding:
    """Whose a request is."""

    __slots__ = ("model_name", "parent", "parent_id", "replicas", "request_id")

    def __init__(
        self,
        request_id: str,
        model_name: str | None,
        parent: Binding | None = None,
        parent_id: str | None = None,
    ) -> None:
        self.request_id = request_id
        self.model_name = model_name
        #: Of a companion, which goes where its parent went.
        self.parent = parent
        self.parent_id = parent_id
        #: By stage.
        self.replicas: dict[int, int] = {}

    def replica(self, stage: int) -> int | None:
        """Which replica of the stage was given it; None if that is not known."""
        if stage in self.replicas or self.parent is None:
            return self.replicas.get(stage)
        return self.parent.replicas.get(stage)


class Bindings:
    """By the engine's internal id; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: OrderedDict[str, Binding] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def begin(self, request_id: str, model_name: str) -> None:
        """A request of this model arrived."""
        with self._lock:
            self._add(request_id, Binding(request_id, model_name))

    def bind(self, request_id: str, stage: int, replica: int, parent_id: str | None) -> None:
        """A replica was given the request."""
        with self._lock:
            binding = self._by_id.get(request_id)
            if binding is None:
                parent = self._by_id.get(parent_id) if parent_id is not None else None
                name = parent.model_name if parent is not None else None
                binding = Binding(request_id, name, parent, parent_id)
                self._add(request_id, binding)
            binding.replicas[stage] = replica

    def of(self, request_id: str) -> Binding | None:
        """None of a request that is not known, or is forgotten."""
        with self._lock:
            return self._by_id.get(request_id)

    def _add(self, request_id: str, binding: Binding) -> None:
        self._by_id[request_id] = binding
        if len(self._by_id) > MOST_REQUESTS:
            self._by_id.popitem(last=False)
