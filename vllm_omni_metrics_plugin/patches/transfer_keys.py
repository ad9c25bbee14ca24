"""What the engine's connectors call a payload, and whose it is.

- ``<request>_<from>_<chunk>``: a stage's output
- ``<request>_<from>_<chunk>_<from rank>_<to rank>``: a rank's part of a KV cache
- ``omni_<from>_to_<to>_kv_cache_<request>``: a KV cache of stages of one rank
"""

from __future__ import annotations

import re

_RANKS = re.compile(r"(.+)_(\d+)_\d+_\d+_\d+")
_CHUNK = re.compile(r"(.+)_(\d+)_\d+")


def requests_of(key: str, from_stage: int, to_stage: int) -> tuple[str, ...]:
    """Internal ids of the requests that a payload with this key can belong to.

    More than one, since an id may end as a key does; none of a key of another form.
    """
    cache = f"omni_{from_stage}_to_{to_stage}_kv_cache_"
    if key.startswith(cache):
        return (key[len(cache) :],)
    found = (pattern.fullmatch(key) for pattern in (_CHUNK, _RANKS))
    return tuple(match[1] for match in found if match and match[2] == str(from_stage))
