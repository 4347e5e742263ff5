"""Topics that are given partitions: workers refuse to go on, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.new_partitions import NewPartitions

from infra.local.ports import free_ports
from infra.local.programs import worker_environment
from infra.local.topics import create_topics
from stream import topics
from stream.kafka import running
from stream.partitioners import partition_of
from stream.settings import Settings
from tests.workers import http, lag, online, records, send, title_open, until, worker

PROFILES = [f"member-{number}" for number in range(40)]
ERASED = [f"erased-{number}" for number in range(10)]
WAS, NOW = 4, 6
"""Keys move between the old partitions, too."""


def intentstream(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of the command line under these settings."""
    return subprocess.run(
        [sys.executable, "-m", "stream.cli", *arguments],
        env={**os.environ, **worker_environment(settings)},
        capture_output=True,
        text=True,
        check=False,
    )


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
    other = settings.model_copy(update={"metrics_port": free_ports(1)[0]})
    asyncio.run(create_topics(settings))
    everybody = [*PROFILES, *ERASED]
    log, other_log = tmp_path / "worker.log", tmp_path / "other.log"
    with worker(settings, log) as one, worker(other, other_log) as two:
        for each in (settings, other):
            until(lambda each=each: http(each, "/ready")[0] == 200, "two workers", within_s=180)
        assert intentstream(settings, "repartition", str(NOW)).stderr.startswith(
            "RepartitionRefused: 2 workers are members"
        )
        for _ in range(3):
            send(settings, [title_open(profile) for profile in everybody])
            time.sleep(0.01)
        until(lambda: lag(settings) == 0, "no lag")

        add_partitions(settings, NOW)
        # Long before its own clients would see the new partitions, and die of them.
        assert one.wait(timeout=180) != 0
        assert two.wait(timeout=180) != 0
    for told in (log, other_log):
        assert "run `intentstream repartition`" in told.read_text()
    with worker(settings, log) as refused:
        assert refused.wait(timeout=180) != 0
        assert http(settings, "/ready")[0] == 0

    # What waits meanwhile, by producers that know of the new partitions and by those that don't.
    send_by(settings, WAS, topics.BROWSE_EVENTS, {each: title_open(each) for each in everybody})
    last = {profile: title_open(profile) for profile in everybody}
    send_by(settings, NOW, topics.BROWSE_EVENTS, last)
    send_by(settings, WAS, topics.PROFILE_ERASURES, dict.fromkeys(ERASED))

    moved = intentstream(settings, "repartition")
    assert moved.returncode == 0, moved.stderr
    assert "murmur2" in moved.stdout

    with worker(settings, log):
        until(lambda: http(settings, "/ready")[0] == 200, "a ready worker", within_s=180)
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
    assert intentstream(wide, "topics").returncode == 0
