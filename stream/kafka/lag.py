"""Consumer lag, measured from committed and end offsets by a client of its own.

The worker's own word on its lag would be worth nothing when it hangs. A committed offset below the
log's start (retention took the records in between) counts from the start: those records can't be
consumed any more, so they are no lag. One that belongs to another log than the one that is there
now (see `bookmark`) counts from where that was not read yet. A log ends where an open transaction
begins: nobody may read on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from rich.table import Table
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from stream.domain.topics import CONSUMED_TOPICS
from stream.kafka.bookmark import Bookmark, replaced
from stream.kafka.connection import answering, broker_error, running
from stream.kafka.consumer import Consumer, high_watermarks
from stream.plain_text import PlainConsole, json_text
from stream.settings import KafkaSettings

_COORDINATOR_S: Final = 10.0
_PATIENCE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """Lag of one group on one partition; `committed` None where it never committed."""

    group: str
    topic: str
    partition: int
    start: int
    committed: int | None
    end: int
    open_records: int = 0
    """How many stand behind the end, because a transaction is open."""

    replaced_at: int | None = None
    """Where the log parts from the one that `committed` is an offset of; None where it doesn't."""

    @property
    def lag(self) -> int:
        """Records between the group's place and the log's end."""
        place = self.committed if self.replaced_at is None else self.replaced_at
        return max(self.end - max(place or 0, self.start), 0)

    def to_json(self) -> dict[str, Any]:
        """All fields, and the lag."""
        return {**asdict(self), "lag": self.lag}


class LagReader:
    """Reads the lag of groups through clients of its own.

    Args:
        settings: where Kafka is.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as clients:
            self._admin, self._consumer = [
                await clients.enter_async_context(running(kind, self._settings))
                for kind in (AIOKafkaAdminClient, Consumer)
            ]
            self._clients = clients.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._clients.aclose()

    async def read(self, group: str, topics: Collection[str] = ()) -> list[PartitionLag]:
        """The lag of `group` on every partition that it has committed, and on all of `topics`.

        Args:
            group: any consumer group.
            topics: full names of topics to report even where nothing was committed yet.

        Raises:
            BrokerUnavailableError: when Kafka does not answer.
        """
        try:
            marks = await self._committed(group)
            places = await self._partitions({*topics, *(place.topic for place in marks)})
            places = [place for place in places if place in marks or place.topic in topics]
            marks = {place: mark for place, mark in marks.items() if place in places}
            starts = await self._consumer.beginning_offsets(places)
            ends = await self._consumer.end_offsets(places)
            high = await high_watermarks(self._consumer, places)
            parted = await replaced(self._consumer, marks)
        except KafkaError as error:
            raise broker_error(self._settings, error) from error
        return [
            PartitionLag(
                group=group,
                topic=place.topic,
                partition=place.partition,
                start=starts[place],
                committed=marks[place].offset if place in marks else None,
                end=ends[place],
                open_records=max(high[place] - ends[place], 0),
                replaced_at=parted.get(place),
            )
            for place in places
        ]

    async def missing(self, topics: Iterable[str]) -> list[str]:
        """The given topics (full names) that Kafka doesn't have.

        Raises:
            BrokerUnavailableError: when Kafka does not answer.
        """
        try:
            described = await self._admin.describe_topics(sorted(topics))
        except KafkaError as error:
            raise broker_error(self._settings, error) from error
        return [topic["topic"] for topic in described if not topic["partitions"]]

    @retry(
        # A new cluster makes the topic of offsets when it is first asked for a group.
        retry=retry_if_exception_type(GroupCoordinatorNotAvailableError),
        wait=wait_fixed(0.2),
        stop=stop_after_delay(_COORDINATOR_S),
        reraise=True,
    )
    async def _committed(self, group: str) -> dict[TopicPartition, Bookmark]:
        offsets = await self._admin.list_consumer_group_offsets(group)
        return {place: Bookmark.of(entry) for place, entry in offsets.items() if entry.offset >= 0}

    async def _partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        """The partitions of those of topics that exist; a group may have read others."""
        if not topics:
            return []
        described = await self._admin.describe_topics(sorted(topics))
        return sorted(
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        )


async def print_lag(settings: KafkaSettings, group: str | None, *, as_json: bool) -> None:
    """Print a group's lag as a table, or as JSON: a list of objects, one for each partition.

    Args:
        settings: where Kafka is; the group and topics that are ours.
        group: any group; None means ours, whose topics are shown even before its first commit.
        as_json: print JSON.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    ours = group in (None, settings.consumer_group)
    topics = [settings.topic(name) for name in CONSUMED_TOPICS] if ours else []
    async with LagReader(settings) as reader, answering(settings, within_s=_PATIENCE_S):
        lags = await reader.read(group or settings.consumer_group, topics)
    if as_json:
        print(json_text([each.to_json() for each in lags]))
        return
    table = Table("group", "topic", "partition", "start", "committed", "end", "open", "lag")
    for each in lags:
        committed = "" if each.committed is None else str(each.committed)
        numbers = (each.partition, each.start, committed, each.end, each.open_records, each.lag)
        table.add_row(each.group, each.topic, *map(str, numbers))
    total = sum(each.lag for each in lags)
    table.add_section()
    table.add_row("total", *[""] * 6, str(total))
    console = PlainConsole()
    console.print(table)
    for each in lags:
        if each.replaced_at is not None:
            console.print(
                f"{each.topic}, partition {each.partition}: offset {each.committed} is of another "
                f"log than the one that is there; all from offset {each.replaced_at} on is unread",
                style="red",
            )
