"""Logs that are exchanged for others under a group's committed offsets: all of the new is read."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from stream.domain import topics
from stream.exceptions import ChangelogLostError
from stream.kafka.admin import create_topics
from stream.kafka.connection import running
from stream.kafka.consumer import Consumer
from stream.kafka.lag import LagReader
from stream.settings import Settings
from tests.workers import exit_code, http, lag, online, records, send, title_open, until, worker

GONE = "any more; this goes on by itself once it is there again"
PROFILES = [f"member-{n}" for n in range(20)]


@pytest.fixture
def settings(isolated: Settings, kafka: str, redis: str, served_model: str) -> Settings:
    """Settings of a worker; its topics exist."""
    settings = isolated.model_copy(update={"model_version": served_model})
    asyncio.run(create_topics(settings))
    return settings


async def committed(settings: Settings) -> dict[TopicPartition, OffsetAndMetadata]:
    """What the group has committed of the events."""
    async with running(AIOKafkaAdminClient, settings) as admin:
        found = await admin.list_consumer_group_offsets(settings.consumer_group)
        return {at: entry for at, entry in found.items() if "browse" in at.topic}


async def commit(settings: Settings, offsets: dict[TopicPartition, Any]) -> None:
    """Commit them in the name of the group, which has no members now."""
    async with running(
        Consumer, settings, group_id=settings.consumer_group, enable_auto_commit=False
    ) as consumer:
        consumer.assign(list(offsets))
        await consumer.commit(offsets)


async def delete(settings: Settings, *names: str) -> None:
    """Delete topics; wait until they are gone."""
    full = [settings.topic(name) for name in names]
    async with running(AIOKafkaAdminClient, settings) as admin:
        await admin.delete_topics(full)
        while any(topic["partitions"] for topic in await admin.describe_topics(full)):
            await asyncio.sleep(0.1)


def unread(settings: Settings) -> int:
    """The lag on browse events."""

    async def read() -> int:
        topic = settings.topic(topics.BROWSE_EVENTS)
        async with LagReader(settings) as reader:
            found = await reader.read(settings.consumer_group, [topic])
            return sum(each.lag for each in found if each.topic == topic)

    return asyncio.run(read())


def test_of_a_log_that_ends_before_the_committed_offset_all_is_read(
    settings: Settings, tmp_path: Path
) -> None:
    places = [
        TopicPartition(settings.topic(topics.BROWSE_EVENTS), number)
        for number in range(settings.topic_partitions)
    ]
    asyncio.run(commit(settings, dict.fromkeys(places, 1000)))
    send(settings, [title_open(profile) for profile in PROFILES])
    assert unread(settings) == len(PROFILES)
    with worker(settings, tmp_path / "log", wait=True):
        until(lambda: lag(settings) == 0, "no lag")
        assert [online(settings, profile, "sequence_no") for profile in PROFILES] == [1] * 20
        told = http(settings, "/metrics")[1]
    resets = [
        line for line in told.splitlines() if line.startswith("intentstream_log_resets_total")
    ]
    assert len(resets) == settings.topic_partitions
    assert (
        "is another log than the one that was read up to offset 1000"
        in (tmp_path / "log").read_text()
    )


def test_of_a_log_that_has_grown_beyond_the_committed_offset_all_is_read(
    settings: Settings, tmp_path: Path
) -> None:
    send(settings, [title_open(profile) for profile in PROFILES])
    with worker(settings, tmp_path / "log", wait=True):
        until(lambda: lag(settings) == 0, "no lag")
    marks = asyncio.run(committed(settings))
    asyncio.run(delete(settings, topics.BROWSE_EVENTS))
    asyncio.run(create_topics(settings))
    send(settings, [title_open(profile) for _ in range(3) for profile in PROFILES])
    # Kafka drops what was committed of a topic that it deletes; of one restored it doesn't.
    asyncio.run(commit(settings, marks))
    assert unread(settings) == 3 * len(PROFILES)
    with worker(settings, tmp_path / "log", wait=True):
        until(lambda: lag(settings) == 0, "no lag")
    assert [online(settings, profile, "sequence_no") for profile in PROFILES] == [4] * 20


def test_topics_that_are_gone_are_told_and_go_on_within_seconds_of_their_return(
    settings: Settings, tmp_path: Path
) -> None:
    send(settings, [title_open(profile) for profile in PROFILES])
    with worker(settings, tmp_path / "log", wait=True) as process:
        until(lambda: lag(settings) == 0, "no lag")
        asyncio.run(delete(settings, topics.BROWSE_EVENTS, topics.INTENT_FEATURES))
        until(lambda: GONE in (tmp_path / "log").read_text(), "the worker tells")
        assert http(settings, "/ready")[0] == 503
        assert http(settings, "/live")[0] == 200
        asyncio.run(create_topics(settings))
        send(settings, [title_open(profile) for profile in PROFILES])
        until(
            lambda: [online(settings, one, "sequence_no") for one in PROFILES] == [2] * 20,
            "what came to the new topic",
            60,
        )
        until(lambda: http(settings, "/ready")[0] == 200, "a ready worker", 30)
        assert process.poll() is None
    assert (tmp_path / "log").read_text().count(GONE) <= 2  # the topics may go one by one
    assert len(records(settings, topics.INTENT_FEATURES)) >= len(PROFILES)


def test_a_changelog_that_is_made_anew_ends_the_worker_and_is_refused_until_that_is_accepted(
    settings: Settings, tmp_path: Path
) -> None:
    send(settings, [title_open(profile) for profile in PROFILES for _ in range(2)])
    log = tmp_path / "log"
    with worker(settings, log, wait=True) as process:
        until(lambda: lag(settings) == 0, "no lag")
        asyncio.run(delete(settings, topics.SESSIONS_CHANGELOG))
        assert exit_code(process) != 0
    assert "ChangelogLostError" in log.read_text()
    with pytest.raises(ChangelogLostError, match="--begin-anew"):
        asyncio.run(create_topics(settings))
    send(settings, [title_open(profile) for profile in PROFILES])
    with worker(settings, log) as process:
        assert exit_code(process) != 0
    assert [online(settings, one, "sequence_no") for one in PROFILES] == [2] * len(PROFILES)
    asyncio.run(create_topics(settings, begin_anew=True))
    with worker(settings, log, wait=True):
        until(lambda: lag(settings) == 0, "no lag")
        assert [online(settings, one, "sequence_no") for one in PROFILES] == [1] * len(PROFILES)


def test_a_worker_whose_log_is_exchanged_ends_and_the_next_reads_the_new_one(
    settings: Settings, tmp_path: Path
) -> None:
    send(settings, [title_open(profile) for _ in range(3) for profile in PROFILES])
    patient = settings.model_copy(update={"session_timeout_s": 60})
    with worker(patient, tmp_path / "log", wait=True) as process:
        until(lambda: lag(settings) == 0, "no lag")
        # It sleeps, or it would see that the topic is missing in between.
        process.send_signal(signal.SIGSTOP)
        try:
            asyncio.run(delete(settings, topics.BROWSE_EVENTS))
            asyncio.run(create_topics(settings))
            send(settings, [title_open(profile) for profile in PROFILES])
        finally:
            process.send_signal(signal.SIGCONT)
        until(lambda: process.poll() is not None, "the worker's end")
    assert "was exchanged while it was read" in (tmp_path / "log").read_text()
    with worker(settings, tmp_path / "log", wait=True):
        until(lambda: lag(settings) == 0, "no lag")
        assert [online(settings, profile, "sequence_no") for profile in PROFILES] == [4] * 20
