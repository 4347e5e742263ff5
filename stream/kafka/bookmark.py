"""A group's place in a log, and whether the log is still the one that it is a place in.

An offset alone doesn't say. A topic that is deleted and made anew, restored, or cut short by an
unclean election counts its offsets again, so that a group which goes on at its committed offset
skips what stands below it now, unread. Brokers see that only while the offset lies beyond the log's
end. So what is committed says more: the broker time of the newest record that was read. In a log
whose records bear the broker's time (`LogAppendTime`), nothing later than that can stand below the
committed offset, unless it is another log; and the first that does is where to go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from stream.kafka.consumer import high_watermarks

LOG_APPEND_TIME: Final = 1
"""A record's `timestamp_type` where its timestamp is the broker's."""

_READ_TO: Final = "read_to_ms="
_MOST_STEPS: Final = 8


class Bookmark(NamedTuple):
    """A group's place in a partition.

    `read_to_ms` is the broker time of the newest record before it; None where it isn't known, as
    with offsets that another program committed.
    """

    offset: int
    read_to_ms: int | None = None

    @classmethod
    def of(cls, committed: OffsetAndMetadata) -> Self:
        """The bookmark that was committed."""
        told = committed.metadata or ""
        digits = told.removeprefix(_READ_TO)
        known = told.startswith(_READ_TO) and digits.isdecimal()
        return cls(committed.offset, int(digits) if known else None)

    def to_commit(self) -> OffsetAndMetadata:
        """What to commit for this position."""
        told = "" if self.read_to_ms is None else f"{_READ_TO}{self.read_to_ms}"
        return OffsetAndMetadata(self.offset, told)


async def behind_markers(consumer: AIOKafkaConsumer, place: Any, mark: Bookmark) -> Bookmark:
    """A bookmark right behind what a transaction left, with the time of that.

    A marker and aborted records have times, too, which no consumer is told: they are asked for, one
    after another. Where there are many the bookmark has no time.

    Args:
        consumer: any started consumer.
        place: the partition.
        mark: the offset, and the time of the newest record before it.

    Raises:
        KafkaError: when Kafka doesn't answer.
    """
    at = TopicPartition(*place)
    for _ in range(_MOST_STEPS):
        if mark.read_to_ms is None:
            return mark
        later = (await consumer.offsets_for_times({at: mark.read_to_ms + 1}))[at]
        if later is None or later.offset >= mark.offset:
            return mark
        mark = mark._replace(read_to_ms=later.timestamp)
    return mark._replace(read_to_ms=None)


async def replaced(
    consumer: AIOKafkaConsumer, bookmarks: Mapping[Any, Bookmark]
) -> dict[TopicPartition, int]:
    """Partitions whose log isn't that of the bookmark any more, and the offset to go on at.

    That offset is the log's start where the bookmark has no time: what is read twice does no harm.

    Args:
        consumer: any started consumer; it needs no group and none of the partitions.
        bookmarks: by partition, which have to exist.

    Raises:
        KafkaError: when Kafka doesn't answer.
    """
    if not bookmarks:
        return {}
    places = {TopicPartition(*place): mark for place, mark in bookmarks.items()}
    timed = {at: mark.read_to_ms + 1 for at, mark in places.items() if mark.read_to_ms is not None}
    # Side by side, because the broker answers neither before a fetch that it was asked for earlier.
    ends, later = await asyncio.gather(
        high_watermarks(consumer, places), consumer.offsets_for_times(dict(timed))
    )
    found = {}
    untimed = []
    for at, mark in places.items():
        if (first := later.get(at)) is not None and first.offset < mark.offset:
            found[at] = first.offset
        elif mark.offset > ends[at] and at in timed:
            found[at] = ends[at]
        elif mark.offset > ends[at]:
            untimed.append(at)
    return found | (await consumer.beginning_offsets(untimed) if untimed else {})
