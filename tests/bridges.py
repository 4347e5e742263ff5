"""What tests of running bridges share: their topic, records on it, and what comes of them."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from intentstream.bridge.service import group_of
from stream.domain import topics
from stream.kafka.admin import create_topics
from stream.kafka.connection import running
from stream.kafka.lag import LagReader
from stream.settings import Settings
from tests.unit.stream.adapters.samples import SEGMENT_PLAYING
from tests.workers import records, until, worker

PARTITIONS = 3
"""Of their topic; ours have another number."""


def prepared(settings: Settings, **update: Any) -> Settings:
    """Settings of a bridge, once their topic and ours are there."""
    theirs = f"{settings.topic_prefix}theirs"
    # The endpoint is where helpers of workers ask.
    given = {"bridge_topic": theirs, "bridge_port": settings.metrics_port, **update}
    ready = settings.model_copy(update=given)

    async def create() -> None:
        await create_topics(ready)
        async with running(AIOKafkaAdminClient, ready) as admin:
            await admin.create_topics([NewTopic(theirs, PARTITIONS, 1)])

    asyncio.run(create())
    return ready


def heartbeat(profile: str, number: int, **fields: Any) -> tuple[bytes, bytes]:
    """Key and value of a record as Segment has it; its message is numbered."""
    message = {**SEGMENT_PLAYING, "userId": profile, "messageId": f"{profile}-{number}", **fields}
    return profile.encode(), orjson.dumps(message)


def send(settings: Settings, given: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Write records to their topic, in order, and wait until it has them."""

    async def produce() -> None:
        async with running(AIOKafkaProducer, settings, linger_ms=5) as producer:
            sent = [
                await producer.send(settings.bridge_topic, value, key=key) for key, value in given
            ]
            await asyncio.gather(*sent)

    asyncio.run(produce())


@contextmanager
def bridge(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running bridge that is ready; terminated at the end."""
    with worker(settings, log, "intentstream", "bridge", wait=True) as process:
        yield process


def lag(settings: Settings) -> int:
    """The lag of the bridge's group."""

    async def read() -> int:
        async with LagReader(settings) as reader:
            return sum(
                one.lag for one in await reader.read(group_of(settings), [settings.bridge_topic])
            )

    return asyncio.run(read())


def bridged(settings: Settings) -> list[Any]:
    """The records on our two topics, in order by partition."""
    return [one for name in topics.EVENT_TOPICS for one in records(settings, name)]


def ids_of(found: Iterable[Any], profile: str) -> list[str]:
    """The events of a profile, in order, each where it came first."""
    ids = [orjson.loads(one.value)["event_id"] for one in found if one.key == profile.encode()]
    return list(dict.fromkeys(ids))


def dead_letters(settings: Settings) -> list[Any]:
    """The records on the topic of their dead letters."""
    theirs = settings.model_copy(update={"topic_prefix": "", "topic_partitions": PARTITIONS})
    return records(theirs, f"{settings.bridge_topic}.dlq")


def until_bridged(settings: Settings) -> None:
    """Wait until everything on their topic has been committed."""
    until(lambda: lag(settings) == 0, "a bridge without lag")
