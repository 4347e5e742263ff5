"""Everything the worker writes to Kafka, in bulk, each delivery awaited.

Records are packed into producer batches by (topic, partition) instead of going through the
producer one by one. The partition is always the one of the record's cause, so that a profile's
state and features stay in one partition whatever partitioner its producers use.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    KafkaUnavailableError,
    UnknownTopicOrPartitionError,
)

from stream.exceptions import BrokerRefusedError, DeliveryFailedError
from stream.kafka.connection import broker_error, client_options, start
from stream.settings import KafkaSettings

_BATCH_BYTES: Final = 512 * 1024
_REQUEST_BYTES: Final = 4 * 1024 * 1024
_PASSING: Final = (KafkaTimeoutError, KafkaUnavailableError)
"""Pass too, although aiokafka doesn't say so."""


class Outgoing(NamedTuple):
    """One record to be written. `topic` is without the prefix; `timestamp_ms` None means now."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int | None = None


class RecordProducer(Protocol):
    """What delivers records, as its callers know it."""

    async def deliver(self, records: Sequence[Outgoing]) -> None:
        """Write records; return when the broker has them all."""


class Outbox:
    """An idempotent producer that delivers many records at once.

    Raises:
        BrokerUnavailableError: on entering, when Kafka does not answer.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer = AIOKafkaProducer(
            **client_options(settings),
            enable_idempotence=True,
            max_batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
        )

    async def __aenter__(self) -> Self:
        await start(self._producer, self._settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def deliver(self, records: Iterable[Outgoing]) -> None:
        """Write `records`, in order within each partition; returns when the broker has them all.

        All attempts have ended when this returns or raises: none writes behind the caller's back.

        Raises:
            BrokerError: when one could not be delivered. Some may have been: deliver all of them
                again.
            DeliveryFailedError: when this producer can't deliver it, however often it is asked.
        """
        by_partition: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        for record in records:
            by_partition[record.topic, record.partition].append(record)
        try:
            await _all(self._deliver(*place, some) for place, some in by_partition.items())
        except KafkaError as error:
            failure = broker_error(self._settings, error)
            if (
                error.retriable
                or isinstance(error, _PASSING)
                or isinstance(failure, BrokerRefusedError)
            ):
                raise failure from error
            # A batch that failed for good leaves a hole in the producer's sequence, which the
            # broker holds against all that follow; a new producer begins another.
            raise DeliveryFailedError(f"{failure}; the worker must be started again") from error

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has, as far as the producer knows; `topic` as in `Outgoing`.

        Raises:
            BrokerUnavailableError: when Kafka doesn't say.
        """
        try:
            return len(await self._producer.partitions_for(self._settings.topic(topic)))
        except KafkaError as error:
            raise broker_error(self._settings, error) from error

    async def _know(self, name: str, partition: int) -> None:
        """Make sure that the producer knows of a partition, which a consumer may do before it.

        Raises:
            UnknownTopicOrPartitionError: when the broker doesn't know of it either; it may yet.
        """
        if partition not in await self._producer.partitions_for(name):
            await self._producer.client.force_metadata_update()
            if partition not in await self._producer.partitions_for(name):
                raise UnknownTopicOrPartitionError(f"{name}, partition {partition}")

    async def _deliver(self, topic: str, partition: int, records: list[Outgoing]) -> None:
        name = self._settings.topic(topic)
        await self._know(name, partition)
        delivered: list[Awaitable[object]] = []
        batch = self._producer.create_batch()
        try:
            for record in records:
                if not _append(batch, record):
                    sent = await self._producer.send_batch(batch, name, partition=partition)
                    delivered.append(sent)
                    batch = self._producer.create_batch()
                    _append(batch, record)
            delivered.append(await self._producer.send_batch(batch, name, partition=partition))
        finally:
            await _all(delivered)


async def _all(awaitables: Iterable[Awaitable[object]]) -> None:
    """Wait for all of them, then raise the first error that one ended with."""
    for result in await asyncio.gather(*awaitables, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _append(batch: object, record: Outgoing) -> bool:
    return (
        batch.append(  # type: ignore[attr-defined]
            key=record.key,
            value=record.value,
            timestamp=record.timestamp_ms,
            headers=list(record.headers),
        )
        is not None
    )
