"""The headers of a client's request that events carry, as the operator asked for them."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

#: Name and value of each, in the operator's order.
Headers = tuple[tuple[str, str], ...]

MOST_HEADERS = 8
#: Headers whose value lets whoever knows it in; events never carry it as it is.
SECRETS = frozenset(
    {"api-key", "authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token"}
)
#: Characters of a value that is carried as it is; the rest of it is left out.
LONGEST_VALUE = 256
#: Hexadecimal digits of a hash: two keys have the same one by a chance of 1 to 2 ** 64.
HASH_DIGITS = 16

#: As RFC 9110 spells tokens.
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
#: Their values begin with the name of a scheme, as in ``Bearer KEY``; the hash is the key's alone.
_WITH_SCHEME = frozenset({"authorization", "proxy-authorization"})


class CarriedHeader(NamedTuple):
    """A header that events carry."""

    #: In lower case.
    name: str
    #: They carry a hash of its value.
    hashed: bool


def carried_headers(
    variable: str, environ: Mapping[str, str], warn: Callable[[str], None]
) -> tuple[CarriedHeader, ...]:
    """What ``variable`` asks for: names and ``name:hash``, comma-separated; never raises."""
    carried: dict[str, CarriedHeader] = {}
    for entry in filter(None, map(str.strip, environ.get(variable, "").split(","))):
        name, colon, form = entry.lower().partition(":")
        hashed = form == "hash"
        if not _NAME.fullmatch(name) or (colon and not hashed):
            warn(
                f"{variable}: {entry!r} is neither a header's name nor name:hash and was ignored; "
                "no event carries it"
            )
        elif name in carried:
            warn(f"{variable}: {entry!r} names a header twice and was ignored")
        elif len(carried) == MOST_HEADERS:
            warn(f"{variable}: {entry!r} is one more than {MOST_HEADERS} and was ignored")
        else:
            if name in SECRETS and not hashed:
                warn(
                    f"{variable}: {entry!r} is a secret, of which events carry a hash alone; "
                    f"{name}:hash says so"
                )
            carried[name] = CarriedHeader(name, hashed or name in SECRETS)
    return tuple(carried.values())


class RequestHeaders:
    """Reads the headers that the operator named, and no other."""

    def __init__(self, carried: Sequence[CarriedHeader], salt: str = "") -> None:
        """With a ``salt`` hashes are keyed by it (HMAC), so nobody can try keys against them."""
        self._carried = [(header.name.encode(), header) for header in carried]
        self._names = frozenset(name for name, _ in self._carried)
        self._salt = salt.encode("utf-8", "surrogateescape")  # as the environment has it

    def __call__(self, scope: Mapping[str, Any]) -> Headers:
        """Those of an ASGI scope. Of a name that is there twice the first, as the engine reads it.

        A header that the client did not send is left out.
        """
        first = self._first(scope["headers"])
        return tuple(
            (header.name, self._value(header, first[name]))
            for name, header in self._carried
            if name in first
        )

    def _first(self, headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
        first: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in self._names:
                first.setdefault(name, value)
        return first

    def _value(self, header: CarriedHeader, value: bytes) -> str:
        if not header.hashed:
            return value[:LONGEST_VALUE].decode("latin-1")
        if header.name in _WITH_SCHEME:
            scheme, _, key = value.strip().partition(b" ")
            value = key.strip() or scheme
        if self._salt:
            return hmac.new(self._salt, value, hashlib.sha256).hexdigest()[:HASH_DIGITS]
        return hashlib.sha256(value).hexdigest()[:HASH_DIGITS]
