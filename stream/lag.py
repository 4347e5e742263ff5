"""Consumer lag, measured from committed and end offsets by a client of its own.

The worker's own word on its lag would be worth nothing when it hangs. A committed offset below the
log's start (retention took the records in between) counts from the start: those records can't be
consumed any more, so they are no lag.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.table import Table

from stream.exceptions import BrokerUnavailable
from stream.settings import Settings
from stream.topics import EVENT_TOPICS


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


async def group_lag(
    bootstrap: str, group: str, topics: list[str] | None = None
) -> list[PartitionLag]:
    """The lag of `group` on every partition that it has committed, and on all of `topics`.

    Args:
        bootstrap: Kafka bootstrap servers.
        group: any consumer group.
        topics: full topic names to report even where nothing was committed yet.

    Raises:
        BrokerUnavailable: when Kafka does not answer.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        await consumer.start()
        offsets = await admin.list_consumer_group_offsets(group)
        committed = {tp: entry.offset for tp, entry in offsets.items() if entry.offset >= 0}
        places = set(committed)
        for topic in topics or ():
            partitions = await _partitions(consumer, topic)
            places |= {TopicPartition(topic, partition) for partition in partitions}
        ordered = sorted(places)
        starts = await consumer.beginning_offsets(ordered)
        ends = await consumer.end_offsets(ordered)
    except KafkaError as error:
        raise BrokerUnavailable(
            f"Kafka at {bootstrap} did not tell offsets ({error!r}); check INTENT_KAFKA_BOOTSTRAP"
        ) from error
    finally:
        await consumer.stop()
        await admin.close()
    return [
        PartitionLag(
            group=group,
            topic=place.topic,
            partition=place.partition,
            start=starts[place],
            committed=committed.get(place),
            end=ends[place],
        )
        for place in ordered
    ]


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    # A consumer knows the partitions of topics that its client was told to follow.
    await consumer._client.add_topic(topic)
    return consumer.partitions_for_topic(topic) or set()


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
    lags = await group_lag(
        settings.kafka_bootstrap,
        group or settings.consumer_group,
        [settings.topic(name) for name in EVENT_TOPICS] if ours else None,
    )
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
