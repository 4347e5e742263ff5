"""How many partitions the topics had when the states of profiles were put into them.

A state is found in the changelog's partition that its profile's events come by. Where topics are
given partitions, most keys belong to another one, and a worker that went on would begin their
profiles anew. So the number is remembered, in one record on the compacted topic `intent-model`,
under a key of its own; `stream.kafka.repartition` changes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from mode import Service
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stream.domain import topics
from stream.exceptions import BrokerError, ChangelogLostError, PartitionsChangedError
from stream.kafka.changelog import HEAD_KEY, Changelog, Whereabouts
from stream.kafka.connection import broker_error, client_options, partitions_of, running, start
from stream.kafka.consumer import Consumer, high_watermarks
from stream.kafka.partitioners import Partitioner, fitting, partition_of
from stream.settings import KafkaSettings

_log = logging.getLogger(__name__)
_KEY: Final = b"intentstream.topology"
_PARTITION: Final = 0
_KEYS_KEPT: Final = 1 << 17
_INTERVAL_S: Final = 5.0
_SAMPLE: Final = 2_000
_TELLING: Final = 20
"""Keys that don't agree by chance."""


class Topology(BaseModel):
    """Where states are."""

    model_config = ConfigDict(frozen=True)

    partitions: int = Field(ge=1)
    """Partitions of each topic."""

    partitioner: Partitioner | None = None
    """Says where a key's state is; None where it is wherever its events came by."""

    moving: bool = False
    """States are on their way to where these partitions and this partitioner have them."""

    def place(self) -> Callable[[bytes, int], int]:
        """The partition that a key belongs to, given the one in which it was found."""
        if self.partitioner is None:
            return lambda _, found: found
        partitioner, partitions = self.partitioner, self.partitions
        # The hash of a key, in Python, takes as long as all else that a record needs.
        known = lru_cache(_KEYS_KEPT)(lambda key: partition_of(key, partitioner, partitions))
        return lambda key, _: known(key)

    def allows(self, partitions: int) -> None:
        """Check that a worker may run while topics have so many partitions.

        Raises:
            PartitionsChangedError: when states are elsewhere, or under way.
        """
        if self.moving:
            raise PartitionsChangedError(
                f"states are being moved to {self.partitions} partitions; if that was cut short, "
                "run `intentstream repartition` again, then start the workers"
            )
        if partitions != self.partitions:
            raise PartitionsChangedError(
                f"the topics have {partitions} partitions, and states are where {self.partitions} "
                f"had them; stop all workers, run `intentstream repartition {partitions}`, which "
                "moves the states, and start them again (docs/partitions.md)"
            )


class TopologyReader:
    """Reads the topology of now, again and again, through a client of its own.

    Raises:
        BrokerUnavailableError: on entering, when Kafka does not answer.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._place = TopicPartition(settings.topic(topics.MODEL_RELEASES), _PARTITION)
        self._consumer = Consumer(**client_options(settings), auto_offset_reset="earliest")
        self._turn = asyncio.Lock()
        self._newest: Topology | None = None

    async def __aenter__(self) -> Self:
        await start(self._consumer, self._settings)
        self._consumer.assign([self._place])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def read(self) -> Topology | None:
        """The topology that is remembered now; None where none was yet.

        Raises:
            BrokerUnavailableError: when Kafka does not answer.
        """
        async with self._turn:
            try:
                end = (await self._consumer.end_offsets([self._place]))[self._place]
                async for record in self._consumer.until({self._place: end}):
                    if record.key == _KEY:
                        self._newest = self._decoded(record.value)
            except KafkaError as error:
                raise broker_error(self._settings, error) from error
            return self._newest

    def _decoded(self, value: bytes | None) -> Topology | None:
        try:
            return Topology.model_validate_json(value) if value else None
        except ValidationError as error:
            raise PartitionsChangedError(
                f"what {self._place.topic} says of the partitions can't be read: {error}; a newer "
                "release wrote it: use that"
            ) from error


async def read_topology(settings: KafkaSettings) -> Topology | None:
    """The topology that is remembered now; None where none was yet.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    async with TopologyReader(settings) as reader:
        return await reader.read()


async def write_topology(settings: KafkaSettings, topology: Topology) -> None:
    """Remember it; returns when the broker has it.

    Raises:
        BrokerUnavailableError: when Kafka does not take it.
    """
    async with running(AIOKafkaProducer, settings, enable_idempotence=True) as producer:
        await producer.send_and_wait(
            settings.topic(topics.MODEL_RELEASES),
            topology.model_dump_json().encode(),
            key=_KEY,
            partition=_PARTITION,
        )


async def empty_partitions(settings: KafkaSettings) -> list[int]:
    """The changelog's partitions that have never held a record.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    places = await partitions_of(settings, settings.topic(topics.SESSIONS_CHANGELOG))
    async with running(Consumer, settings) as consumer:
        ends = await high_watermarks(consumer, places)
    return sorted(place.partition for place, end in ends.items() if end == 0)


async def begin_changelog(settings: KafkaSettings) -> None:
    """Have each of the changelog's partitions that is empty begin with a tombstone of nobody.

    Raises:
        BrokerUnavailableError: when Kafka does not take it.
    """
    topic = settings.topic(topics.SESSIONS_CHANGELOG)
    empty = await empty_partitions(settings)
    async with running(AIOKafkaProducer, settings, enable_idempotence=True) as producer:
        for partition in empty:
            await producer.send_and_wait(topic, None, key=HEAD_KEY, partition=partition)


async def check_changelog(settings: KafkaSettings, partitions: int) -> None:
    """Make sure that the changelog is the one that states were put into.

    A worker that went on with an empty one would begin every profile anew, and its newer event
    times would overwrite good features.

    Args:
        settings: where Kafka is.
        partitions: how many had states; any behind them may be new.

    Raises:
        ChangelogLostError: when a partition is empty.
        BrokerUnavailableError: when Kafka does not answer.
    """
    empty = [one for one in await empty_partitions(settings) if one < partitions]
    if empty:
        raise ChangelogLostError(
            f"{settings.topic(topics.SESSIONS_CHANGELOG)} was made anew (partitions {empty} are "
            "empty), and the profiles' states are gone with the one before; put it back from a "
            "copy, or accept the loss by `intentstream topics --begin-anew`: profiles begin anew "
            "then (set the group back to the start of the event topics before, by "
            "kafka-consumer-groups.sh, and what these still hold is taken in again)"
        )


async def settle_topology(settings: KafkaSettings, partitions: int) -> Topology:
    """What is remembered, after making sure that a worker may run; at the first start, remember it.

    Args:
        settings: where Kafka is.
        partitions: how many each topic has.

    Raises:
        PartitionsChangedError: when states are elsewhere, or under way.
        ChangelogLostError: when states are gone.
        BrokerUnavailableError: when Kafka does not answer.
    """
    topology = await read_topology(settings)
    if topology is None:
        topology = Topology(partitions=await _placed_by(settings, partitions))
        await begin_changelog(settings)
        await write_topology(settings, topology)
    topology.allows(partitions)
    await check_changelog(settings, partitions)
    return topology


async def _placed_by(settings: KafkaSettings, partitions: int) -> int:
    """How many partitions states were put into, while nobody remembered that."""
    known = Whereabouts()
    async with Changelog.of(settings) as changelog:
        async for record in changelog.read():
            known.take(record.key, record.partition, is_gone=False)
            if len(known) == _SAMPLE:
                break
    if len(known) < _TELLING:
        return partitions
    good, was = fitting(known.placed(), range(1, partitions + 1), partitions)
    return was if good else partitions


class TopologyWatch(Service):
    """Ends the worker when topics are given partitions, or states moved, while it runs.

    Its own clients would go on for minutes without reading the new partitions.
    """

    def __init__(self, settings: KafkaSettings, reader: TopologyReader, topology: Topology) -> None:
        self._settings = settings
        self._reader = reader
        self._topology = topology
        super().__init__()

    async def check(self) -> None:
        """Make sure that states have not been moved, nor are being moved now.

        Who moves them first says so and then looks for members of the group. So a worker that asks
        once it is a member has either been seen by him, or sees what he said.

        Raises:
            PartitionsChangedError: when they have, or are.
            BrokerUnavailableError: when Kafka does not answer.
        """
        newest = await self._reader.read()
        if newest not in (None, self._topology):
            newest.allows(newest.partitions)
            raise PartitionsChangedError(
                f"states were moved to {newest.partitions} partitions; start the worker again"
            )

    async def insist(self) -> None:
        """`check`, and that the changelog is still the one of the states, once Kafka answers.

        Raises:
            PartitionsChangedError: as `check`.
            ChangelogLostError: when it isn't.
        """
        while not self.should_stop:
            try:
                await self.check()
                await check_changelog(self._settings, self._topology.partitions)
                break
            except BrokerError as error:
                self.log.warning("%s", error)
                await self.sleep(1.0)

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            try:
                async with running(AIOKafkaAdminClient, self._settings) as admin:
                    while not self.should_stop:
                        await self.check()
                        await self._count(admin)
                        await self.sleep(_INTERVAL_S)
            except BrokerError:
                await self.sleep(_INTERVAL_S)  # the watchdog tells of it

    async def _count(self, admin: Any) -> None:
        names = [self._settings.topic(name) for name in topics.CONSUMED_TOPICS]
        for topic in await admin.describe_topics(names):
            if topic["partitions"]:
                self._topology.allows(len(topic["partitions"]))
