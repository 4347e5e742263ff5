"""The Kafka consumer that each of ours is, but for Faust's, which is made alike in `transport`.

It reads what was committed: records of a transaction that is open or was aborted are nobody's
business. It survives records that aiokafka can't parse (see `salvage`), and it sees within seconds
that a topic went away or came back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from copy import copy
from time import monotonic
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_UNCOMMITTED
from aiokafka.errors import ConsumerStoppedError, KafkaTimeoutError

from stream.kafka.salvage import Fetched, fetched

ISOLATION: Final = "read_committed"
METADATA_MAX_AGE_S: Final = 5.0
"""How long a topic that was made anew goes unnoticed; aiokafka would have five minutes."""

_PATIENCE_MS: Final = 1000
_SILENCE_S: Final = 20.0
"""How long a broker may send nothing of what it has."""


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]
    """aiokafka's consumer; the arguments are the same."""

    def __init__(self, *topics: str, **options: Any) -> None:
        super().__init__(
            *topics,
            isolation_level=ISOLATION,
            metadata_max_age_ms=round(METADATA_MAX_AGE_S * 1000),
            **options,
        )

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> Fetched:
        """As aiokafka's, poison pills included."""
        if self._closed:
            raise ConsumerStoppedError
        self._coordinator.check_errors()
        with self._subscription.fetch_context():
            most = max_records or self._max_poll_records
            return await fetched(self, partitions, timeout_ms / 1000, most)

    async def getone(self, *partitions: TopicPartition) -> Any:
        """As aiokafka's, poison pills included."""
        while True:
            many = await self.getmany(*partitions, timeout_ms=_PATIENCE_MS, max_records=1)
            for records in many.values():
                return records[0]

    async def until(self, ends: dict[TopicPartition, int]) -> AsyncIterator[Any]:
        """The assigned partitions' records from where the consumer is to these offsets, no further.

        A log may end with a transaction's marker, which is no record. So this looks at where the
        consumer is, and doesn't wait for a last record.

        Raises:
            KafkaTimeoutError: when the broker sends nothing for long: a consumer that has lost it
                would wait for ever.
        """
        left, moved_at_s = set(ends), monotonic()
        reached: dict[TopicPartition, int] = {}
        while True:
            try:
                async with asyncio.timeout(_SILENCE_S):
                    places = {place: await self.position(place) for place in left}
            except TimeoutError as error:
                raise KafkaTimeoutError(f"no word of {sorted(left)}") from error
            if places != reached:
                reached, moved_at_s = places, monotonic()
            elif monotonic() - moved_at_s > _SILENCE_S:
                raise KafkaTimeoutError(f"nothing of {sorted(left)} for {_SILENCE_S:.0f} s")
            left = {place for place, position in places.items() if position < ends[place]}
            if not left:
                return
            fetched = await self.getmany(*left, timeout_ms=_PATIENCE_MS)
            for place, records in fetched.items():
                for record in records:
                    if record.offset < ends[place]:
                        yield record
                if records[-1].offset >= ends[place]:
                    self.seek(place, ends[place])


async def high_watermarks(
    consumer: AIOKafkaConsumer, places: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Where logs end, whatever the consumer reads: `end_offsets` ends before an open transaction.

    Raises:
        KafkaError: when Kafka doesn't answer.
    """
    asking = copy(consumer._fetcher)
    asking._isolation_level = READ_UNCOMMITTED
    ends: dict[TopicPartition, int] = await asking.end_offsets(places, consumer._request_timeout_ms)
    return ends
