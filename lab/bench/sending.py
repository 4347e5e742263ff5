"""Puts a traffic where a worker finds it: the events, and the states that were kept before."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream.domain import topics
from stream.kafka.connection import running
from stream.kafka.outbox import Outbox, Outgoing
from stream.kafka.partitioners import partition_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.bench.traffic import Traffic
    from stream.settings import Settings

_AT_ONCE: Final = 5_000
"""Records that are made before they are sent."""


async def send(settings: Settings, traffic: Traffic, changelog: str) -> None:
    """Send all events, and write the states to a changelog, which is made if there is none.

    Args:
        settings: where Kafka is.
        traffic: what to send.
        changelog: the topic's name, without the prefix.
    """

    def place(key: bytes) -> int:
        return partition_of(key, "murmur2", settings.topic_partitions)

    if traffic.states and changelog != topics.SESSIONS_CHANGELOG:
        async with running(AIOKafkaAdminClient, settings) as admin:
            name = settings.topic(changelog)
            compact = {"cleanup.policy": "compact"}
            await admin.create_topics(
                [NewTopic(name, settings.topic_partitions, 1, topic_configs=compact)]
            )
    await _deliver(
        settings,
        (
            Outgoing(changelog, place(key), key, state)
            for key, state in ((name.encode(), state) for name, state in traffic.states.items())
        ),
    )
    await _deliver(
        settings,
        (Outgoing(one.topic, place(one.key), one.key, one.value) for one in traffic.records()),
    )


async def _deliver(settings: Settings, records: Iterable[Outgoing]) -> None:
    left = iter(records)
    async with Outbox(settings) as outbox:
        while some := list(islice(left, _AT_ONCE)):
            await outbox.deliver(some)
