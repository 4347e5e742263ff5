"""A hole in the offsets is a gap in the log only if the broker says so twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
from aiokafka import AIOKafkaProducer

from stream.domain import topics
from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests.workers import lag, online, send, title_open, until, worker

PROFILES = [f"member-{n}" for n in range(20)]
EACH = 40


def test_records_lost_after_their_fetch_are_fetched_again(
    isolated: Settings, kafka: str, redis: str, served_model: str, tmp_path: Path
) -> None:
    settings = isolated.model_copy(update={"model_version": served_model})
    asyncio.run(create_topics(settings))
    # What lies before is a committed offset to start from.
    send(settings, [title_open(profile) for profile in PROFILES])
    with worker(settings, tmp_path / "log", wait=True):
        until(lambda: lag(settings) == 0, "no lag")
    send(settings, [title_open(profile) for _ in range(EACH) for profile in PROFILES])
    with worker(settings, tmp_path / "log", "tests.chaos.forgetful_worker", wait=True):
        until(lambda: lag(settings) == 0, "no lag with the forgetful worker")
    assert [online(settings, profile, "sequence_no") for profile in PROFILES] == [EACH + 1] * 20


def test_the_markers_of_transactions_hold_nothing_up(
    isolated: Settings, kafka: str, redis: str, served_model: str, tmp_path: Path
) -> None:
    settings = isolated.model_copy(update={"model_version": served_model})
    asyncio.run(create_topics(settings))

    async def transactions() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap, transactional_id=settings.consumer_group
        )
        async with producer:
            for _ in range(3):
                async with producer.transaction():
                    for profile in PROFILES:
                        event = title_open(profile)
                        await producer.send(
                            settings.topic(topics.BROWSE_EVENTS),
                            orjson.dumps(event),
                            key=profile.encode(),
                        )

    asyncio.run(transactions())
    last = [title_open(profile) for profile in PROFILES]
    send(settings, last)
    with worker(settings, tmp_path / "log", wait=True):
        until(lambda: lag(settings) == 0, "no lag")
    for profile, event in zip(PROFILES, last, strict=True):
        assert online(settings, profile) == event["event_id"]
