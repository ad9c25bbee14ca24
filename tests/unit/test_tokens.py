"""Tokens of the pipeline, by direction, stage and replica."""

from __future__ import annotations

from typing import Any

from tests.unit.feed import Feed

MODEL = {"model_name": "tiny"}
FIRST = {**MODEL, "stage": "0", "replica": "0"}
SECOND = {**MODEL, "stage": "1", "replica": "3"}


def finish(feed: Feed, tokens_in: int | None, tokens_out: int | None, **changes: Any) -> None:
    usual = {"stage": 0, "replica": 0, "diffusion": None}
    feed.finish_stage(**{**usual, "tokens_in": tokens_in, "tokens_out": tokens_out, **changes})


def test_tokens_add_up_by_direction_and_replica(feed: Feed, exposed: Any) -> None:
    exposed.join(stage=0)
    exposed.join(replica=3)
    finish(feed, 12, 25)
    finish(feed, 7, 1)
    finish(feed, 0, 40, stage=1, replica=3)
    assert exposed.value("prompt_tokens_total", **FIRST) == 19
    assert exposed.value("generation_tokens_total", **FIRST) == 26
    assert exposed.value("generation_tokens_total", **SECOND) == 40
    assert exposed.value("prompt_tokens_total", **SECOND) is None, "prompts enter in the first"
    assert exposed.missing() == {}


def test_tokens_stand_at_0_where_a_stage_can_have_them(exposed: Any) -> None:
    exposed.join(stage=0)
    exposed.join(stage=1, stage_type="diffusion")
    assert exposed.value("prompt_tokens_total", **FIRST) == 0
    assert exposed.value("generation_tokens_total", **FIRST) == 0
    assert exposed.value("generation_tokens_total", **MODEL, stage="1", replica="0") is None


def test_tokens_that_nobody_counted_are_missing(feed: Feed, exposed: Any) -> None:
    exposed.join(stage=0)
    finish(feed, None, 5)
    finish(feed, 5, None)
    finish(feed, None, None, stage=1, replica=3)
    assert exposed.value("prompt_tokens_total", **FIRST) == 5
    assert exposed.value("generation_tokens_total", **FIRST) == 5
    assert exposed.missing() == {
        ("prompt_tokens_total", "no_tokens"): 1,
        ("generation_tokens_total", "no_tokens"): 2,
    }


def test_companions_and_diffusion_engines_have_no_tokens(feed: Feed, exposed: Any) -> None:
    exposed.join(stage=0)
    finish(feed, 12, 25, model_name=None)
    nobodys = {**FIRST, "model_name": "None"}
    assert exposed.value("generation_tokens_total", **nobodys) is None
    feed.finish_stage(stage=0, replica=0, tokens_in=12, tokens_out=25)
    assert exposed.value("prompt_tokens_total", **FIRST) == 0
    assert exposed.value("generation_tokens_total", **FIRST) == 0
    assert exposed.missing() == {}
