"""The changelog of the sessions, read as a whole: which keys stand where, and their states."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Self

from aiokafka import TopicPartition

from stream.domain import topics
from stream.domain.rules import Rules
from stream.exceptions import BadStateError
from stream.kafka.connection import partitions_of, running
from stream.kafka.consumer import Consumer
from stream.settings import KafkaSettings

HEAD_KEY: Final = b""
"""Key of the tombstone that each partition begins with: one that has never held a record was made
anew, and the states that stood in it are gone."""

_FETCH_BYTES: Final = 8 * 1024 * 1024


class Changelog:
    """Reads the changelog's partitions through a client of its own.

    Args:
        consumer: a started client, without a group.
        places: all partitions.
    """

    def __init__(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._places = places

    @classmethod
    @asynccontextmanager
    async def of(cls, settings: KafkaSettings) -> AsyncIterator[Self]:
        """The changelog of these settings, open while the block runs.

        Raises:
            BrokerUnavailableError: when Kafka does not answer, also later.
        """
        places = await partitions_of(settings, settings.topic(topics.SESSIONS_CHANGELOG))
        options = {"auto_offset_reset": "earliest", "max_partition_fetch_bytes": _FETCH_BYTES}
        async with running(Consumer, settings, **options) as consumer:
            yield cls(consumer, places)

    async def read(
        self, partitions: Collection[int] | None = None, since: dict[int, int] | None = None
    ) -> AsyncIterator[Any]:
        """All records of states, and what ends these, up to the ends that the partitions have now.

        Args:
            partitions: their numbers; by default all.
            since: where to begin, by partition; is brought to where the reading ended.

        Raises:
            KafkaError: when Kafka does not answer.
        """
        since = {} if since is None else since
        places = [at for at in self._places if partitions is None or at.partition in partitions]
        starts = await self._consumer.beginning_offsets(places)
        ends = await self._consumer.end_offsets(places)
        begins = {at: max(since.get(at.partition, 0), starts[at]) for at in places}
        left = {at: ends[at] for at in places if begins[at] < ends[at]}
        if not left:
            return
        self._consumer.assign(list(left))
        for at in left:
            self._consumer.seek(at, begins[at])
        async for record in self._consumer.until(left):
            if record.key != HEAD_KEY:
                yield record
        since |= {at.partition: end for at, end in left.items()}


class Whereabouts:
    """The partitions in which each key has a state."""

    def __init__(self) -> None:
        # One bit for each partition: there may be millions of keys.
        self._standing: dict[bytes, int] = {}

    def take(self, key: bytes, partition: int, *, is_gone: bool) -> None:
        """Take in one record, after those before it in its partition."""
        bits = self._standing.get(key, 0)
        bits = bits & ~(1 << partition) if is_gone else bits | 1 << partition
        if bits:
            self._standing[key] = bits
        else:
            self._standing.pop(key, None)

    def __len__(self) -> int:
        return len(self._standing)

    def of(self, key: bytes) -> list[int]:
        """The partitions in which a key has a state."""
        bits = self._standing.get(key, 0)
        return [partition for partition in range(bits.bit_length()) if bits >> partition & 1]

    def placed(self) -> Iterator[tuple[bytes, int]]:
        """Each key with each partition in which it has a state."""
        for key in self._standing:
            for partition in self.of(key):
                yield key, partition


class KeptState(NamedTuple):
    """An encoded state as it stands in one partition."""

    data: bytes
    at_ms: int
    """When it was kept last, Unix milliseconds."""


StatesByPlace = dict[tuple[bytes, int], KeptState]
"""States by key and partition."""


def join_into(states: StatesByPlace, record: Any, rules: Rules) -> None:
    """Take in one record of the changelog, as a worker does that reads states back.

    Raises:
        BadStateError: when it can't be joined with what is there; says which it is.
    """
    from stream.domain import (
        codec,  # with a compiler, which those who only look for keys do without
    )

    place = record.key, record.partition
    if record.value is None:
        states.pop(place, None)
        return
    known = states.get(place)
    try:
        data = codec.joined(known and known.data, record.value, rules)
    except BadStateError as error:
        raise BadStateError(
            f"the state of {record.key!r} in {record.topic}, partition {record.partition}, up to "
            f"offset {record.offset} can't be read: {error}; write a tombstone for that key, which "
            "loses the profile's history, or use the release that wrote it"
        ) from error
    states[place] = KeptState(data, max(record.timestamp, known.at_ms if known else 0))
