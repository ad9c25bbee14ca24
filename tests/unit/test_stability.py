"""What authors of hook plugins wrote for the last release holds; what is new does not break it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.public_api import NEXT, RELEASED, Api, public_api, read
from tests.unit.test_renamed import FIELDS, NAMES

#: Fields that may be None since the release: what was not known used to be made up.
WIDENED = {
    "MediaPacket.since_arrival_seconds": ("float", "None | float"),
    "RequestFinished.end_to_end_seconds": ("float", "None | float"),
}
#: What was public by accident: the server's own way to load plugins, and how it hears of errors.
WITHDRAWN = {"HookManager.load_installed", "HookManager.__init__(notice)"}
_NEW_NAMES = {old: new for _, old, new in NAMES}
_NEW_FIELDS = {f"{kind.__name__}.{old}": new for kind, old, new in FIELDS}


def broken(then: Api, now: Api) -> list[str]:
    """What of ``then`` cannot be relied on any more; empty where plugins for it go on to work."""
    return [
        *_broken_hooks(then, now),
        *_broken_fields(then, now),
        *_broken_names(then, now),
        *_broken_calls(then, now),
    ]


def _broken_hooks(then: Api, now: Api) -> list[str]:
    return [
        f"{hook} is not called with {kind}"
        for hook, kind in then["hooks"].items()
        if now["hooks"].get(hook) != kind
    ]


def _broken_fields(then: Api, now: Api) -> list[str]:
    found = []
    for kind, struct in then["structs"].items():
        new = now["structs"].get(kind)
        if new is None:
            found.append(f"{kind} is gone")
            continue
        for field, was in struct["fields"].items():
            name = f"{kind}.{field}"
            has = new["fields"].get(_NEW_FIELDS.get(name, field))
            if has is None:
                found.append(f"{name} is gone")
            elif not _reads_as(was, has) and WIDENED.get(name) != (was, has):
                found.append(f"{name} was {was} and is {has}")
        renamed = {_NEW_FIELDS.get(f"{kind}.{field}", field) for field in struct["required"]}
        found += [
            f"{kind} cannot be made without {field}" for field in {*new["required"]} - renamed
        ]
    return found


def _reads_as(was: str, has: str) -> bool:
    """It is the same type, or there are more words."""
    alternatives, more = set(was.split(" | ")), set(has.split(" | "))
    return alternatives <= more and all(word.startswith("'") for word in more - alternatives)


def _broken_names(then: Api, now: Api) -> list[str]:
    return [
        f"{module}.{name} is gone"
        for module, names in then["names"].items()
        for name in names
        if _NEW_NAMES.get(name, name) not in now["names"][module]
    ]


def _broken_calls(then: Api, now: Api) -> list[str]:
    found = [f"hookimpl({name})" for name in then["hookimpl"] if name not in now["hookimpl"]]
    for function, parameters in then["functions"].items():
        module, _, name = function.partition(".")
        new = now["functions"].get(f"{module}.{_NEW_NAMES.get(name, name)}", [])
        found += [f"{function}({missing})" for missing in parameters if missing not in new]
    for kind, methods in then["classes"].items():
        new = now["classes"].get(_NEW_NAMES.get(kind, kind), {})
        for method, parameters in methods.items():
            if method not in new:
                found.append(f"{kind}.{method}")
            else:
                missing = [name for name in parameters if name not in new[method]]
                found += [f"{kind}.{method}({name})" for name in missing]
    return [what for what in found if what not in WITHDRAWN]


def test_what_plugins_for_the_last_release_use_is_still_there() -> None:
    assert broken(read(RELEASED), public_api()) == []


def test_next_release_is_on_record() -> None:
    assert public_api() == read(NEXT), f"run `python -m tests.unit.public_api {NEXT}`"


def test_excuses_are_needed() -> None:
    then, now = read(RELEASED), public_api()
    for name, (was, has) in WIDENED.items():
        kind, _, field = name.partition(".")
        assert then["structs"][kind]["fields"][field] == was
        assert now["structs"][kind]["fields"][field] == has
    renamed = {f"{kind}.{field}" for kind, s in then["structs"].items() for field in s["fields"]}
    assert {*_NEW_FIELDS} <= renamed
    assert {*_NEW_NAMES} <= {name for names in then["names"].values() for name in names}
    assert "load_installed" in then["classes"]["HookManager"]
    assert "load_installed" not in now["classes"]["HookRegistry"]


def _drop(*path: str) -> Callable[[Api], None]:
    def change(api: Api) -> None:
        *way, last = path
        for step in way:
            api = api[step]
        api.remove(last) if isinstance(api, list) else api.pop(last)

    return change


def _put(value: Any, *path: str) -> Callable[[Api], None]:
    def change(api: Api) -> None:
        *way, last = path
        for step in way:
            api = api[step]
        api[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_drop("hooks", "omni_media_packet"), "omni_media_packet is not called with MediaPacket"),
        (_put("Packet", "hooks", "omni_media_packet"), "is not called with MediaPacket"),
        (_drop("structs", "DiffusionWork"), "DiffusionWork is gone"),
        (_drop("structs", "StageFinished", "fields", "tokens_out"), "StageFinished.tokens_out is"),
        (_drop("structs", "AudioFinished", "fields", "samples"), "AudioFinished.frames is gone"),
        (
            _put("str", "structs", "AudioFinished", "fields", "stage"),
            "AudioFinished.stage was int and is str",
        ),
        (
            _put("None | int", "structs", "AudioFinished", "fields", "stage"),
            "AudioFinished.stage was int and is None | int",
        ),
        (
            _put("None", "structs", "AudioFinished", "fields", "replica"),
            "AudioFinished.replica was None | int and is None",
        ),
        (
            _put(["mood"], "structs", "MediaPacket", "required"),
            "MediaPacket cannot be made without mood",
        ),
        (_drop("names", "hooks", "plugins"), "hooks.plugins is gone"),
        (_drop("names", "testing", "make_event"), "testing.make is gone"),
        (_drop("hookimpl", "slow"), "hookimpl(slow)"),
        (
            _drop("functions", "testing.speech_request", "outcome"),
            "testing.speech_request(outcome)",
        ),
        (_drop("classes", "HookRegistry", "flush"), "HookManager.flush"),
        (_drop("classes", "HookHarness", "fire", "seconds"), "HookStage.fire(seconds)"),
        (_drop("classes", "Recorder"), "Recorder.only"),
    ],
)
def test_what_is_missing_or_another_thing_is_named(
    change: Callable[[Api], None], says: str
) -> None:
    now = copy.deepcopy(public_api())
    change(now)
    found = broken(read(RELEASED), now)
    assert any(says in sentence for sentence in found), found


def test_what_is_new_breaks_nothing() -> None:
    now = copy.deepcopy(public_api())
    now["hooks"]["omni_of_next_year"] = "NextYear"
    now["structs"]["MediaPacket"]["fields"]["mood"] = "str"
    now["structs"]["MediaPacket"]["fields"]["modality"] += " | 'smell'"
    now["names"]["hooks"].append("NextYear")
    now["hookimpl"].append("lazily")
    assert broken(read(RELEASED), now) == []
