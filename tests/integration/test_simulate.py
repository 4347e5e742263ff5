"""Simulated members on a real Kafka."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from lab.simulator import SimulatorParameters
from lab.simulator.broadcast import send
from lab.simulator.output import generate
from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests.workers import records

MEMBERS = SimulatorParameters(members=8, days=6)


@pytest.fixture
def sent(isolated: Settings, kafka: str) -> dict[str, list[dict[str, object]]]:
    asyncio.run(create_topics(isolated))
    count = send(MEMBERS, isolated, speed_up=1e6)
    found = {
        topic: [orjson.loads(record.value) for record in records(isolated, topic)]
        for topic in ("playback-events", "browse-events")
    }
    assert count == sum(map(len, found.values()))
    return found


def test_every_event_of_the_members_is_sent_once_and_none_tells_the_hidden_intent(
    sent: dict[str, list[dict[str, object]]],
) -> None:
    events = [event for some in sent.values() for event in some]
    made = generate(MEMBERS).events
    assert sorted(event["event_id"] for event in events) == sorted(made["event_id"].to_pylist())
    assert set().union(*events) <= set(made.column_names)


def test_event_times_end_now_and_keep_their_distances(
    sent: dict[str, list[dict[str, object]]],
) -> None:
    times = {event["event_id"]: event["occurred_at_ms"] for some in sent.values() for event in some}
    made = generate(MEMBERS).events
    ids, before = made["event_id"].to_pylist(), made["occurred_at_ms"].to_pylist()
    shifts = {times[one] - at for one, at in zip(ids, before, strict=True)}
    assert len(shifts) == 1
    assert 0 < time.time() * 1000 - max(times.values()) < 600_000
