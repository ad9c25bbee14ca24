"""Which headers of a client's request events carry, and in which form."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_omni_metrics_plugin import settings
from vllm_omni_metrics_plugin.request_headers import (
    HASH_DIGITS,
    LONGEST_VALUE,
    MOST_HEADERS,
    SECRETS,
    CarriedHeader,
    RequestHeaders,
)
from vllm_omni_metrics_plugin.settings import PREFIX, Settings

VARIABLE = f"{PREFIX}_HEADERS"


def carried(value: str) -> tuple[list[tuple[str, bool]], list[str]]:
    warnings: list[str] = []
    parsed = settings.parse({VARIABLE: value}, warnings.append)
    return [(header.name, header.hashed) for header in parsed.headers], warnings


def read(names: str, *sent: tuple[bytes, bytes], salt: str = "") -> dict[str, str]:
    parsed = settings.parse({VARIABLE: names}, lambda _: None)
    return dict(RequestHeaders(parsed.headers, salt)({"headers": sent}))


def sha256(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()[:HASH_DIGITS]


# What is asked for


def test_none_is_carried_unless_it_is_named() -> None:
    assert Settings().headers == settings.parse({}).headers == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        (" , ", []),
        ("x-team", [("x-team", False)]),
        (" X-Team , authorization:HASH,", [("x-team", False), ("authorization", True)]),
        ("x-team:hash", [("x-team", True)]),
    ],
)
def test_names_are_a_list_each_with_its_form(value: str, expected: list[Any]) -> None:
    assert carried(value) == (expected, [])


@pytest.mark.parametrize("entry", ["x team", "x-team:md5", "x-team:", ":hash", "x" * 65, "tëam"])
def test_entry_that_names_no_header_is_ignored_with_one_message(entry: str) -> None:
    headers, [warning] = carried(f"x-first,{entry},x-last")
    assert headers == [("x-first", False), ("x-last", False)]
    assert warning.startswith(f"{VARIABLE}: {entry!r} is neither")
    assert "no event carries it" in warning


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_secret_is_carried_as_a_hash_however_it_is_asked_for(name: str) -> None:
    headers, [warning] = carried(name)
    assert headers == [(name, True)]
    assert f"{name}:hash says so" in warning
    assert carried(f"{name}:hash") == ([(name, True)], [])


def test_header_that_is_named_twice_is_carried_once() -> None:
    headers, [warning] = carried("x-team,X-Team:hash")
    assert headers == [("x-team", False)]
    assert "'X-Team:hash' names a header twice" in warning


def test_no_more_are_carried_than_events_have_room_for() -> None:
    headers, [warning] = carried(",".join(f"x-{n}" for n in range(MOST_HEADERS + 1)))
    assert len(headers) == MOST_HEADERS
    assert f"'x-{MOST_HEADERS}' is one more than {MOST_HEADERS}" in warning


def test_salt_is_in_no_log_of_the_settings() -> None:
    parsed = settings.parse({f"{PREFIX}_HEADERS_SALT": "pepper"})
    assert parsed.headers_salt == "pepper"
    assert "pepper" not in repr(parsed)


@given(st.text())
def test_any_value_is_parsed_into_few_well_formed_headers(value: str) -> None:
    headers, _ = carried(value)
    assert len(headers) <= MOST_HEADERS
    assert all(name == name.lower() and name.isascii() for name, _ in headers)
    assert all(hashed for name, hashed in headers if name in SECRETS)


# What is read


def test_values_come_in_the_order_in_which_they_were_named() -> None:
    parsed = settings.parse({VARIABLE: "x-b,x-a,x-absent"})
    scope = {"headers": [(b"x-a", b"1"), (b"host", b"h"), (b"x-b", b"2")]}
    assert RequestHeaders(parsed.headers)(scope) == (("x-b", "2"), ("x-a", "1"))


@pytest.mark.parametrize(
    "value",
    [b"Bearer sk-secret", b"bearer  sk-secret ", b"sk-secret", b" Bearer sk-secret"],
)
def test_authorization_is_the_hash_of_the_key_whatever_surrounds_it(value: bytes) -> None:
    assert read("authorization:hash", (b"authorization", value)) == {
        "authorization": sha256(b"sk-secret")
    }


def test_other_hashes_are_of_the_whole_value() -> None:
    assert read("cookie:hash", (b"cookie", b"a=1; b=2")) == {"cookie": sha256(b"a=1; b=2")}


def test_salted_hash_is_keyed() -> None:
    value = read("x-api-key:hash", (b"x-api-key", b"sk"), salt="pepper")["x-api-key"]
    assert value == hmac.new(b"pepper", b"sk", "sha256").hexdigest()[:HASH_DIGITS]
    assert value != sha256(b"sk")


def test_salt_that_is_no_unicode_is_taken_as_the_environment_has_it() -> None:
    salt = b"\xff\xfe".decode("utf-8", "surrogateescape")
    value = read("x-api-key:hash", (b"x-api-key", b"sk"), salt=salt)["x-api-key"]
    assert value == hmac.new(b"\xff\xfe", b"sk", "sha256").hexdigest()[:HASH_DIGITS]


def test_long_value_is_cut_and_bytes_are_latin_1() -> None:
    assert read("x-team", (b"x-team", b"t" * 9_999)) == {"x-team": "t" * LONGEST_VALUE}
    assert read("x-team", (b"x-team", "é".encode("latin-1"))) == {"x-team": "é"}


def test_of_a_header_that_is_sent_twice_the_first_counts() -> None:
    assert read("x-team", (b"x-team", b"red"), (b"x-team", b"blue")) == {"x-team": "red"}


@given(st.sampled_from(sorted(SECRETS)), st.binary(min_size=8, max_size=600))
def test_nothing_of_a_secret_is_carried(name: str, secret: bytes) -> None:
    reader = RequestHeaders([CarriedHeader(name, hashed=True)])
    [(_, value)] = reader({"headers": [(name.encode(), secret)]})
    assert len(value) == HASH_DIGITS
    assert set(value) <= set("0123456789abcdef")
    assert secret.decode("latin-1") not in value
