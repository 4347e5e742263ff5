"""The replay's producer and the checker's reader on a real Kafka."""

from __future__ import annotations

import asyncio

import numpy as np
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaProducer

from fm_intent.data import contract
from lab.replay.checker import Origin, Rejection, read_rejected
from lab.replay.plan import Fate, Plan, json_values, plan_replay
from lab.replay.producer import SENT_SCHEMA, Replayed, replay
from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests.workers import records


def _plan() -> Plan:
    count = 4_000
    profiles = np.random.default_rng(1).integers(0, 50, count)
    plays = np.arange(count) % 2 == 0
    events = contract.table(
        contract.EVENTS_SCHEMA,
        {
            "event_id": pa.array([f"e{i}" for i in range(count)]),
            "profile_id": pa.array([f"p{p}" for p in profiles]),
            "event_type": pa.array(np.where(plays, "play_start", "title_open")),
            "occurred_at_ms": pa.array(np.arange(count) * 1_000),
            "title_id": pa.array(["t"] * count),
            "playback_id": pa.array([f"s{i}" for i in range(count)], mask=~plays),
        },
    )
    return plan_replay(events, seed=1, now_ms=1_800_000_000_000, lateness_s=10_000)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return _plan()


@pytest.fixture
def replayed(isolated: Settings, kafka: str, plan: Plan) -> Replayed:
    asyncio.run(create_topics(isolated))
    return asyncio.run(replay(plan, isolated, events_per_s=None, progress=lambda _: None))


def test_every_planned_record_lies_where_the_replay_says_it_does(
    isolated: Settings, plan: Plan, replayed: Replayed
) -> None:
    values = json_values(plan.events)
    lying = {
        (topic, record.partition, record.offset): record.value
        for topic in ("playback-events", "browse-events")
        for record in records(isolated, topic)
    }
    assert len(lying) == len(plan)
    assert replayed.sent.schema == SENT_SCHEMA
    for position, sent in enumerate(replayed.sent.to_pylist()):
        row, source = plan.row[position], plan.fate[position] <= Fate.REPEAT
        value = values[row] if source else plan.crafted[row].value
        assert lying[sent["topic"], sent["partition"], sent["offset"]] == value


def test_records_of_a_partition_keep_the_order_of_the_plan(replayed: Replayed) -> None:
    sent = replayed.sent.to_pandas()
    for _, some in sent.groupby(["topic", "partition"]):
        assert some.offset.is_monotonic_increasing


def test_all_events_of_a_profile_go_to_the_same_partition_on_both_topics(
    replayed: Replayed,
) -> None:
    sent = replayed.sent.to_pandas().dropna(subset="profile_id")
    assert (sent.groupby("profile_id").partition.nunique() == 1).all()


def test_progress_is_told_up_to_the_last_record(isolated: Settings, kafka: str, plan: Plan) -> None:
    asyncio.run(create_topics(isolated))
    told: list[int] = []
    asyncio.run(replay(plan, isolated, events_per_s=50_000, progress=told.append))
    assert told == sorted(told)
    assert told[-1] == len(plan)


def test_what_was_turned_away_is_read_once_by_its_origin(isolated: Settings, kafka: str) -> None:
    async def turn_away() -> dict[Origin, Rejection]:
        await create_topics(isolated)
        origin = [
            ("__connect.errors.topic", isolated.topic("browse-events").encode()),
            ("__connect.errors.partition", b"2"),
            ("__connect.errors.offset", b"17"),
            ("intent.reason", b"not_json"),
        ]
        async with AIOKafkaProducer(bootstrap_servers=isolated.kafka_bootstrap) as producer:
            for _ in range(2):
                topic = isolated.topic("browse-events.dlq")
                await producer.send_and_wait(topic, b"x", headers=origin)
        return await read_rejected(isolated)

    assert asyncio.run(turn_away()) == {
        Origin("browse-events", 2, 17): Rejection("browse-events.dlq", "not_json")
    }
