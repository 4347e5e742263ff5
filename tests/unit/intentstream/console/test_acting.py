from __future__ import annotations

import asyncio

import pytest

from intentstream.console.acting import ACTS, Actor, event_for, may_act
from stream.domain.event_types import BY_NAME
from stream.domain.events import decode
from stream.exceptions import ActingRefusedError, BadRecordError
from stream.settings import Settings

NOW_MS = 1_700_000_000_000
HERE = Settings(console_may_act=True, kafka_bootstrap="127.0.0.1:9092")


@pytest.mark.parametrize("act", ACTS)
def test_what_one_does_is_an_event_as_the_worker_takes_it(act: str) -> None:
    event = event_for("p", act, now_ms=NOW_MS, title_id="s1", query="<script>")
    value = event.model_dump_json(exclude_none=True).encode()
    topic = BY_NAME[event.event_type].topic
    assert decode(topic, b"p", value, broker_time_ms=NOW_MS) == event


def test_no_two_events_have_one_id() -> None:
    first, second = (event_for("p", "open", now_ms=NOW_MS, title_id="s1") for _ in range(2))
    assert first.event_id != second.event_id


def test_a_sitting_that_goes_on_keeps_its_id_and_grows() -> None:
    began = event_for("p", "play", now_ms=NOW_MS, title_id="s1", duration_s=100.0)
    ended = event_for(
        "p",
        "finish",
        now_ms=NOW_MS,
        title_id="s1",
        duration_s=100.0,
        playback_id=began.playback_id,
    )
    assert ended.playback_id == began.playback_id
    assert (began.watched_s, ended.watched_s) == (0.0, 100.0)


@pytest.mark.parametrize(
    ("act", "title_id"), [("play", None), ("open", ""), ("impression!", "s1"), ("open", "s" * 300)]
)
def test_what_is_no_event_is_refused(act: str, title_id: str | None) -> None:
    with pytest.raises(BadRecordError):
        event_for("p", act, now_ms=NOW_MS, title_id=title_id)


def test_nobody_may_act_by_default() -> None:
    assert "INTENT_CONSOLE_MAY_ACT" in may_act(Settings())


def test_one_may_act_where_the_setting_and_the_broker_are_of_here() -> None:
    assert may_act(HERE) == ""


@pytest.mark.parametrize("brokers", ["kafka.example:9092", "127.0.0.1:9092,10.0.0.8:9092"])
def test_the_setting_alone_does_not_allow_it_on_other_machines(brokers: str) -> None:
    elsewhere = HERE.model_copy(update={"kafka_bootstrap": brokers})
    assert "not on this machine" in may_act(elsewhere)


def test_nothing_is_sent_where_nobody_may_act() -> None:
    event = event_for("p", "open", now_ms=NOW_MS, title_id="s1")
    with pytest.raises(ActingRefusedError, match="INTENT_CONSOLE_MAY_ACT"):
        asyncio.run(Actor(Settings()).send(event))
