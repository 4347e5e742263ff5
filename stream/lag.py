"""Consumer lag, measured from committed and end offsets by a client of its own.

The worker's own word on its lag would be worth nothing when it hangs. A committed offset below the
log's start (retention took the records in between) counts from the start: those records can't be
consumed any more, so they are no lag.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from rich.console import Console
from rich.table import Table
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from stream.kafka import answering, broker_error, running
from stream.settings import Settings
from stream.topics import CONSUMED_TOPICS

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

    @property
    def lag(self) -> int:
        """Records between the group's place and the log's end."""
        return max(self.end - max(self.committed or 0, self.start), 0)

    def to_json(self) -> dict[str, Any]:
        """All fields, and the lag."""
        return {**asdict(self), "lag": self.lag}


class LagReader:
    """Reads the lag of groups through clients of its own.

    Args:
        settings: where Kafka is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as clients:
            self._admin, self._consumer = [
                await clients.enter_async_context(running(kind, self._settings))
                for kind in (AIOKafkaAdminClient, AIOKafkaConsumer)
            ]
            self._clients = clients.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._clients.aclose()

    async def read(self, group: str, topics: Sequence[str] = ()) -> list[PartitionLag]:
        """The lag of `group` on every partition that it has committed, and on all of `topics`.

        Args:
            group: any consumer group.
            topics: full names of topics to report even where nothing was committed yet.

        Raises:
            BrokerUnavailable: when Kafka does not answer.
        """
        try:
            committed = await self._committed(group)
            places = sorted({*committed, *await self._partitions(topics)})
            starts = await self._consumer.beginning_offsets(places)
            ends = await self._consumer.end_offsets(places)
        except KafkaError as error:
            raise broker_error(self._settings, error) from error
        return [
            PartitionLag(
                group=group,
                topic=place.topic,
                partition=place.partition,
                start=starts[place],
                committed=committed.get(place),
                end=ends[place],
            )
            for place in places
        ]

    @retry(
        # A new cluster makes the topic of offsets when it is first asked for a group.
        retry=retry_if_exception_type(GroupCoordinatorNotAvailableError),
        wait=wait_fixed(0.2),
        stop=stop_after_delay(_COORDINATOR_S),
        reraise=True,
    )
    async def _committed(self, group: str) -> dict[TopicPartition, int]:
        offsets = await self._admin.list_consumer_group_offsets(group)
        return {place: entry.offset for place, entry in offsets.items() if entry.offset >= 0}

    async def _partitions(self, topics: Sequence[str]) -> list[TopicPartition]:
        if not topics:
            return []
        described = await self._admin.describe_topics(list(topics))
        return [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        ]


async def print_lag(settings: Settings, group: str | None, *, as_json: bool) -> None:
    """Print a group's lag as a table, or as JSON: a list of objects, one for each partition.

    Args:
        settings: where Kafka is; the group and topics that are ours.
        group: any group; None means ours, whose topics are shown even before its first commit.
        as_json: print JSON.

    Raises:
        BrokerUnavailable: when Kafka does not answer.
    """
    ours = group in (None, settings.consumer_group)
    topics = [settings.topic(name) for name in CONSUMED_TOPICS] if ours else []
    async with LagReader(settings) as reader, answering(settings, within_s=_PATIENCE_S):
        lags = await reader.read(group or settings.consumer_group, topics)
    if as_json:
        print(orjson.dumps([each.to_json() for each in lags]).decode())
        return
    table = Table("group", "topic", "partition", "start", "committed", "end", "lag")
    for each in lags:
        committed = "" if each.committed is None else str(each.committed)
        numbers = (each.partition, each.start, committed, each.end, each.lag)
        table.add_row(each.group, each.topic, *map(str, numbers))
    total = sum(each.lag for each in lags)
    table.add_section()
    table.add_row("total", "", "", "", "", "", str(total))
    Console().print(table)
