"""The environment variables: what they mean, and that a bad one costs a warning and no more."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_omni_metrics_plugin import catalog, settings
from vllm_omni_metrics_plugin.settings import BUCKETS_PREFIX, PREFIX, Settings

HISTOGRAMS = [family for family in catalog.FAMILIES if family.kind == "histogram"]
RTF_BUCKETS = f"{BUCKETS_PREFIX}AUDIO_RTF"


def parse(environ: dict[str, str]) -> tuple[Settings, list[str]]:
    warnings: list[str] = []
    return settings.parse(environ, warnings.append), warnings


@pytest.mark.parametrize("value", ["1", "true", "True", "yes", "ON", " on "])
def test_each_word_for_on_switches_on(value: str) -> None:
    wanted, warnings = parse({PREFIX: value})
    assert wanted.enabled
    assert warnings == []


@pytest.mark.parametrize("value", ["0", "false", "no", "OFF", "", "  ", " off "])
def test_each_word_for_off_switches_off_silently(value: str) -> None:
    wanted, warnings = parse({PREFIX: value})
    assert not wanted.enabled
    assert warnings == []


def test_nothing_set_means_defaults() -> None:
    wanted, warnings = parse({"PATH": "/bin", "VLLM_PORT": "8000"})
    assert wanted == Settings()
    assert not wanted.enabled
    assert warnings == []


@pytest.mark.parametrize("value", ["2", "maybe", "y", "enabled", "-1", "\u0661"])
def test_unclear_switch_is_off_and_named_in_one_warning(value: str) -> None:
    wanted, [warning] = parse({PREFIX: value})
    assert not wanted.enabled
    assert warning.startswith(f"{PREFIX}={value!r}")
    assert "the default, off, is used" in warning


@pytest.mark.parametrize(
    ("value", "allowed", "blocked"),
    [
        (None, None, set()),
        ("", set(), set()),
        (" , ", set(), set()),
        ("log", {"log"}, set()),
        ("log, trace,,", {"log", "trace"}, set()),
        ("-log", None, {"log"}),
        ("-log,-trace", None, {"log", "trace"}),
        ("log,-trace", {"log"}, {"trace"}),
        ("log,-log", {"log"}, {"log"}),
    ],
)
def test_hook_names_allow_and_block(
    value: str | None, allowed: set[str] | None, blocked: set[str]
) -> None:
    wanted, warnings = parse({} if value is None else {f"{PREFIX}_HOOKS": value})
    assert wanted.hooks_allowed == allowed
    assert wanted.hooks_blocked == blocked
    assert warnings == []


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        ("0.5,1,2", (0.5, 1.0, 2.0)),
        (" 0.5 , 1 ", (0.5, 1.0)),
        ("1", (1.0,)),
        ("1e-3,1e3", (0.001, 1000.0)),
        ("-1,0,1", (-1.0, 0.0, 1.0)),
        ("0.5,1,+Inf", (0.5, 1.0)),
    ],
)
def test_bucket_bounds_are_taken_over(value: str, bounds: tuple[float, ...]) -> None:
    wanted, warnings = parse({RTF_BUCKETS: value})
    assert wanted.buckets == {"audio_rtf": bounds}
    assert warnings == []


@pytest.mark.parametrize("family", HISTOGRAMS, ids=lambda family: family.stem)
def test_buckets_of_every_histogram_can_be_replaced(family: catalog.Family) -> None:
    wanted, warnings = parse({BUCKETS_PREFIX + family.stem.upper(): "1,2"})
    assert wanted.buckets == {family.stem: (1.0, 2.0)}
    assert warnings == []


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", ",", "1,", "wide", "1,b", "1;2", "1 2"),
        *("2,1", "1,1", "1,3,2"),
        *("nan", "1,nan,2", "1,nan", "inf", "inf,1", "-inf,1", "1,inf,inf"),
    ],
)
def test_bad_bucket_bounds_are_named_and_the_default_kept(value: str) -> None:
    wanted, [warning] = parse({RTF_BUCKETS: value})
    assert wanted.buckets == {}
    assert warning.startswith(f"{RTF_BUCKETS}={value!r}")
    default = ",".join(f"{bound:g}" for bound in catalog.BY_STEM["audio_rtf"].buckets)
    assert warning.endswith(f"the default is used: {default}")


@pytest.mark.parametrize(
    ("value", "players"),
    [("0", (0.0,)), ("0.5, 0", (0.5, 0.0)), ("0,0.2,1", (0.0, 0.2, 1.0)), ("", (0.0, 0.2))],
)
def test_players_are_taken_over(value: str, players: tuple[float, ...]) -> None:
    chosen, warnings = parse({"VLLM_OMNI_METRICS_PLAYERS": value})
    assert (chosen.players, warnings) == (players, [])


@pytest.mark.parametrize("value", ["soon", "0,0.1,0.2,0.3", "-1", "61", "nan", ","])
def test_bad_players_are_named_and_the_default_kept(value: str) -> None:
    chosen, warnings = parse({"VLLM_OMNI_METRICS_PLAYERS": value})
    assert chosen.players == (0.0, 0.2)
    [warning] = warnings
    assert f"VLLM_OMNI_METRICS_PLAYERS={value!r}" in warning
    assert "0,0.2" in warning


@pytest.mark.parametrize(
    ("value", "exposition"),
    [("engine", "engine"), (" Engine", "engine"), ("plugin", "plugin"), ("", "plugin")],
)
def test_exposition_is_the_plugins_or_the_engines(value: str, exposition: str) -> None:
    wanted, warnings = parse({f"{PREFIX}_EXPOSITION": value})
    assert wanted.exposition == exposition
    assert warnings == []


def test_bad_exposition_is_named_and_the_default_kept() -> None:
    wanted, [warning] = parse({f"{PREFIX}_EXPOSITION": "vllm"})
    assert wanted.exposition == "plugin"
    assert warning.startswith(f"{PREFIX}_EXPOSITION='vllm'")
    assert "the default, plugin, is used" in warning


@pytest.mark.parametrize(("value", "port"), [("9400", 9400), (" 1 ", 1), ("65535", 65535)])
def test_port_is_taken_over(value: str, port: int) -> None:
    wanted, warnings = parse({f"{PREFIX}_PORT": value})
    assert wanted.port == port
    assert warnings == []


@pytest.mark.parametrize("value", ["0", "65536", "-1", "http", "94 00", "1e3", "\u0661", "999999"])
def test_bad_port_is_named_and_there_is_none(value: str) -> None:
    wanted, [warning] = parse({f"{PREFIX}_PORT": value})
    assert wanted.port is None
    assert warning.startswith(f"{PREFIX}_PORT={value!r}")
    assert "/metrics is shown on the API's port alone" in warning


def test_one_bad_variable_does_not_spoil_the_others() -> None:
    wanted, [warning] = parse(
        {
            PREFIX: "1",
            f"{PREFIX}_HOOKS": "log",
            RTF_BUCKETS: "2,1",
            f"{BUCKETS_PREFIX}AUDIO_DURATION_SECONDS": "1,10",
        }
    )
    assert RTF_BUCKETS in warning
    assert wanted == Settings(
        enabled=True,
        hooks_allowed=frozenset({"log"}),
        buckets={"audio_duration_seconds": (1.0, 10.0)},
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (f"{PREFIX}_HOOK", f"{PREFIX}_HOOKS"),
        (f"{PREFIX}S", PREFIX),
        (f"{PREFIX}_BUCKET_AUDIO_RTF", RTF_BUCKETS),
        (f"{BUCKETS_PREFIX}AUDIO_RFT", RTF_BUCKETS),
        (f"{BUCKETS_PREFIX}AUDIO_TTFP_SECOND", f"{BUCKETS_PREFIX}AUDIO_TTFP_SECONDS"),
    ],
)
def test_misspelt_variable_is_answered_with_the_likely_one(name: str, meant: str) -> None:
    wanted, [warning] = parse({name: "1,2"})
    assert wanted == Settings()
    assert warning.startswith(f"{name}='1,2'")
    assert "ignored" in warning
    assert warning.endswith(f"did you mean {meant}?")


def test_variable_far_from_every_other_gets_no_guess() -> None:
    _, [warning] = parse({f"{PREFIX}_{'Q' * 60}": "1"})
    assert "ignored" in warning
    assert "did you mean" not in warning


@pytest.mark.parametrize(
    "family",
    [family for family in catalog.FAMILIES if family.kind != "histogram"],
    ids=lambda family: family.stem,
)
def test_families_without_buckets_take_none(family: catalog.Family) -> None:
    wanted, [warning] = parse({BUCKETS_PREFIX + family.stem.upper(): "1,2"})
    assert wanted.buckets == {}
    assert "ignored" in warning


def test_settings_cannot_be_changed_afterwards() -> None:
    wanted, _ = parse({PREFIX: "1"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        wanted.enabled = False  # type: ignore[misc]


NAMES = st.one_of(
    st.text(),
    st.text().map(lambda rest: PREFIX + rest),
    st.text().map(lambda rest: BUCKETS_PREFIX + rest),
    st.sampled_from([PREFIX, f"{PREFIX}_HOOKS"]),
    st.sampled_from([BUCKETS_PREFIX + family.stem.upper() for family in HISTOGRAMS]),
)
VALUES = st.one_of(
    st.text(),
    st.sampled_from(["1", "off", "1e999", "1_0", "9" * 400]),
    st.lists(st.floats() | st.integers()).map(lambda bounds: ",".join(map(str, bounds))),
)


@given(environ=st.dictionaries(NAMES, VALUES))
def test_no_environment_makes_parsing_raise(environ: dict[str, str]) -> None:
    wanted, warnings = parse(environ)

    ours = [name for name in environ if name.startswith(PREFIX)]
    assert len(warnings) <= len(ours), "one warning for each bad variable at most"
    for warning in warnings:
        assert any(warning.startswith(f"{name}={environ[name]!r}") for name in ours), warning
    for stem, bounds in wanted.buckets.items():
        assert catalog.BY_STEM[stem].kind == "histogram"
        assert bounds
        assert all(map(math.isfinite, bounds))
        assert all(low < high for low, high in pairwise(bounds))


# The channel


def test_channel_of_the_same_host_needs_no_key() -> None:
    channel = {"VLLM_OMNI_METRICS_CHANNEL": "ipc:///run/omni/events"}
    parsed, warnings = parse(channel)
    assert (parsed.channel, parsed.channel_key) == ("ipc:///run/omni/events", None)
    assert warnings == []


def test_channel_of_other_hosts_has_a_key(tmp_path: Path) -> None:
    key = tmp_path / "omni.key_secret"
    key.write_text("")
    key.chmod(0o600)
    parsed, warnings = parse(
        {
            "VLLM_OMNI_METRICS_CHANNEL": "tcp://head:5570",
            "VLLM_OMNI_METRICS_CHANNEL_KEY": str(key),
        }
    )
    assert (parsed.channel, parsed.channel_key) == ("tcp://head:5570", str(key))
    assert warnings == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_key_that_others_can_open_is_used_with_a_warning(tmp_path: Path, mode: int) -> None:
    key = tmp_path / "omni.key_secret"
    key.write_text("")
    key.chmod(mode)
    channel = {"VLLM_OMNI_METRICS_CHANNEL": "tcp://head:5570"}
    parsed, [warning] = parse({**channel, "VLLM_OMNI_METRICS_CHANNEL_KEY": str(key)})
    assert parsed.channel_key == str(key)
    assert "chmod 600" in warning


@pytest.mark.parametrize(
    ("address", "key", "word"),
    [
        ("tcp://head:5570", None, "is not set"),
        ("tcp://head:5570", "/no/such/file", "cannot be read"),
        ("tcp://head", "/dev/null", "neither ipc:///path nor tcp://host:port"),
        ("tcp://head:0", "/dev/null", "no port between 1 and 65535"),
        ("tcp://head:65536", "/dev/null", "no port between 1 and 65535"),
        ("udp://head:5570", None, "neither"),
        ("ipc://relative", None, "neither"),
        ("ipc:///" + "x" * 100, None, "neither"),
        (None, "/dev/null", "of no use"),
    ],
)
def test_channel_that_cannot_be_is_named_and_a_private_one_is_used(
    address: str | None, key: str | None, word: str
) -> None:
    environ = {"VLLM_OMNI_METRICS_CHANNEL": address, "VLLM_OMNI_METRICS_CHANNEL_KEY": key}
    parsed, warnings = parse({k: v for k, v in environ.items() if v is not None})
    assert (parsed.channel, parsed.channel_key) == (None, None)
    [warning] = warnings
    assert word.replace("cannot be read", "is not a file that can be read") in warning
    assert (address or key or "") in warning


@pytest.mark.parametrize(("value", "file"), [("slo.toml", "slo.toml"), ("", None), (None, None)])
def test_file_of_objectives_is_what_the_variable_says(value: str | None, file: str | None) -> None:
    wanted, warnings = parse({} if value is None else {f"{PREFIX}_SLO": value})
    assert wanted.slo == file
    assert warnings == []
