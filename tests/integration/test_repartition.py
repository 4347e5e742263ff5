"""Topics that are given partitions: workers refuse to go on, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.new_partitions import NewPartitions

from stream.domain import topics
from stream.exceptions import PartitionsChangedError, RepartitionRefusedError
from stream.kafka.admin import create_topics
from stream.kafka.connection import running
from stream.kafka.partitioners import partition_of
from stream.kafka.preflight import check_topics
from stream.kafka.repartition import Repartitioned, repartition
from stream.kafka.topology import Topology, settle_topology
from stream.settings import Settings
from stream.steps import progress
from tests.workers import http, lag, online, records, send, title_open, until, worker

PROFILES = [f"member-{number}" for number in range(40)]
ERASED = [f"erased-{number}" for number in range(10)]
WAS, NOW = 4, 6
"""Keys move between the old partitions, too."""


def move(settings: Settings, count: int | None = None) -> Repartitioned:
    """`intentstream repartition`."""
    return asyncio.run(repartition(settings, count, None, progress))


def add_partitions(settings: Settings, count: int) -> None:
    """What an operator does without us."""

    async def add() -> None:
        async with running(AIOKafkaAdminClient, settings) as admin:
            names = [settings.topic(topic.name) for topic in topics.TOPICS]
            await admin.create_partitions({name: NewPartitions(count) for name in names})

    asyncio.run(add())


def send_by(settings: Settings, count: int, topic: str, values: Mapping[str, Any]) -> None:
    """Produce as a producer does that knows of so many partitions."""

    async def produce() -> None:
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
            for profile_id, event in values.items():
                await producer.send_and_wait(
                    settings.topic(topic),
                    event and orjson.dumps(event),
                    key=profile_id.encode(),
                    partition=partition_of(profile_id.encode(), "murmur2", count),
                )

    asyncio.run(produce())


def test_partitions_can_be_added_and_every_profile_stays_whole(
    isolated: Settings, kafka: str, redis: str, served_model: str, tmp_path: Path
) -> None:
    settings = isolated.model_copy(update={"model_version": served_model, "session_timeout_s": 6})
    asyncio.run(create_topics(settings))
    everybody = [*PROFILES, *ERASED]
    log = tmp_path / "worker.log"
    with worker(settings, log) as process:
        until(lambda: http(settings, "/ready")[0] == 200, "a ready worker", within_s=300)
        for _ in range(3):
            send(settings, [title_open(profile) for profile in everybody])
            time.sleep(0.01)
        until(lambda: lag(settings) == 0, "no lag")
        with pytest.raises(RepartitionRefusedError, match="1 workers are members"):
            move(settings, NOW)

        add_partitions(settings, NOW)
        # Long before its own clients would see the new partitions, and die of them.
        assert process.wait(timeout=120) != 0
    assert "stop all workers, run `intentstream repartition 6`" in log.read_text()
    with pytest.raises(PartitionsChangedError):
        asyncio.run(settle_topology(settings, asyncio.run(check_topics(settings))))

    # What waits meanwhile, by producers that know of the new partitions and by those that don't.
    send_by(settings, WAS, topics.BROWSE_EVENTS, {each: title_open(each) for each in everybody})
    last = {profile: title_open(profile) for profile in everybody}
    send_by(settings, NOW, topics.BROWSE_EVENTS, last)
    send_by(settings, WAS, topics.PROFILE_ERASURES, dict.fromkeys(ERASED))

    done = move(settings)
    assert done.topology == Topology(partitions=NOW, partitioner="murmur2")
    assert done.profiles == len(everybody) > done.moved > 0

    with worker(settings, log):
        until(lambda: http(settings, "/ready")[0] == 200, "a ready worker", within_s=300)
        stale = {profile: title_open(profile) for profile in PROFILES[:20]}
        send_by(settings, WAS, topics.BROWSE_EVENTS, stale)
        last |= stale
        until(lambda: lag(settings) == 0, "no lag")
        told = http(settings, "/metrics")[1]
    length = {profile: 6 if profile in stale else 5 for profile in PROFILES}
    for feature in ("sequence_no", "session_length"):
        assert {profile: online(settings, profile, feature) for profile in PROFILES} == length
    for profile in everybody:
        assert online(settings, profile) == (
            last[profile]["event_id"] if profile in PROFILES else None
        )
    assert 'outcome="forwarded",topic="browse-events"' in told
    assert 'outcome="forwarded",topic="profile-erasures"' in told

    wide = settings.model_copy(update={"topic_partitions": NOW})
    for name in (*topics.DEAD_LETTER_TOPICS, topics.LATE_EVENTS):
        assert records(wide, name) == []
    asyncio.run(create_topics(wide))
