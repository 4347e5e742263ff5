"""Sends a planned replay to Kafka at a steady rate, and keeps where each record went."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from lab.replay.plan import Fate, Plan, json_values, topic_of
from stream.domain.topics import BROWSE_EVENTS, PLAYBACK_EVENTS
from stream.kafka.connection import running

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stream.settings import Settings

Pace = Callable[[float], int]
"""Seconds since the start → how many records are to be sent by then."""

TOPICS: Final = (BROWSE_EVENTS, PLAYBACK_EVENTS)
_CHUNK: Final = 5_000
_TICK_S: Final = 0.01
_BATCH_BYTES: Final = 256 * 1024

SENT_SCHEMA: Final = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("fate", pa.uint8(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("event_id", pa.string()),
        pa.field("profile_id", pa.string()),
        pa.field("event_type", pa.string()),
        pa.field("occurred_at_ms", pa.int64()),
        pa.field("playback_id", pa.string()),
        pa.field("title_id", pa.string()),
        pa.field("season", pa.int32()),
        pa.field("episode", pa.int32()),
        pa.field("position_s", pa.float64()),
        pa.field("watched_s", pa.float64()),
    ]
)
"""One row per record in the order of sending: where it is in Kafka, what it is (`Fate`), the reason
that must be given when it is rejected, and, of good ones, what its effect depends on."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay that has been sent.

    Attributes:
        sent: by `SENT_SCHEMA`.
        seconds: from the first record sent to the last delivered.
    """

    sent: pa.Table
    seconds: float

    def write(self, path: Path) -> None:
        """Write the table for the checker."""
        pq.write_table(self.sent, path)


async def replay(
    plan: Plan,
    settings: Settings,
    *,
    events_per_s: float | None,
    speed_up: float | None = None,
    progress: Callable[[int], None],
) -> Replayed:
    """Send all records of `plan` in its order.

    Args:
        plan: what to send.
        settings: Kafka's address and the topics' prefix and number of partitions.
        events_per_s: steady rate of sending.
        speed_up: instead, the pace of event time, so many times as fast. With neither, records go
            as fast as Kafka takes them.
        progress: called about ten times a second with the number of records handed to Kafka.

    Raises:
        BrokerUnavailableError: when Kafka does not take a record.
    """
    async with running(
        AIOKafkaProducer, settings, enable_idempotence=True, max_batch_size=_BATCH_BYTES
    ) as producer:
        at_pace = pace(plan, events_per_s, speed_up)
        return await _Sending(plan, settings, producer).run(at_pace, progress)


class _Sending:
    """The records of a plan on their way."""

    def __init__(self, plan: Plan, settings: Settings, producer: AIOKafkaProducer) -> None:
        self._plan = plan
        self._producer = producer
        self._names = [settings.topic(name) for name in TOPICS]
        self._is_playback = topic_of(plan.events["event_type"])
        profiles = plan.events["profile_id"].combine_chunks().dictionary_encode()
        self._profile = profiles.indices.to_numpy()
        self._keys = [profile.encode() for profile in profiles.dictionary.to_pylist()]
        partitions = range(settings.topic_partitions)
        self._partitions = [_partition(key, partitions) for key in self._keys]
        self._crafted_partitions = [_partition(c.key, partitions) for c in plan.crafted]
        self._topic = np.zeros(len(plan), np.uint8)
        self._partition = np.zeros(len(plan), np.int32)
        self._offset = np.full(len(plan), -1, np.int64)
        self._deliveries: list[tuple[list[int], asyncio.Future[Any]]] = []

    async def run(self, at_pace: Pace | None, progress: Callable[[int], None]) -> Replayed:
        total, done = len(self._plan), 0
        began = time.perf_counter()
        reported = began
        while done < total:
            chunk_end = min(done + _CHUNK, total)
            values = self._values(done, chunk_end)
            first = done
            while done < chunk_end:
                due = chunk_end
                if at_pace is not None:
                    due = min(at_pace(time.perf_counter() - began), chunk_end)
                if due > done:
                    await self._send(range(done, due), values[done - first : due - first])
                    done = due
                now = time.perf_counter()
                if now - reported >= 0.1:
                    reported = now
                    progress(done)
                if at_pace is not None:
                    await asyncio.sleep(_TICK_S)
        for positions, delivery in self._deliveries:
            self._offset[positions] = (await delivery).offset + np.arange(len(positions))
        progress(total)
        return Replayed(self._sent(), time.perf_counter() - began)

    def _values(self, start: int, end: int) -> list[bytes | None]:
        """Record values at positions `start` to `end`, encoded ahead of their time."""
        rows, fates = self._plan.row[start:end], self._plan.fate[start:end]
        from_source = fates <= Fate.REPEAT
        encoded = iter(json_values(self._plan.events.take(pa.array(rows[from_source]))))
        return [
            next(encoded) if source else self._plan.crafted[row].value
            for row, source in zip(rows.tolist(), from_source.tolist(), strict=True)
        ]

    async def _send(self, positions: range, values: list[bytes | None]) -> None:
        batches: dict[tuple[int, int], list[tuple[int, bytes | None, bytes | None]]]
        batches = defaultdict(list)
        for position, value in zip(positions, values, strict=True):
            row = int(self._plan.row[position])
            if self._plan.fate[position] <= Fate.REPEAT:
                profile = self._profile[row]
                topic, partition = int(self._is_playback[row]), self._partitions[profile]
                key: bytes | None = self._keys[profile]
            else:
                crafted = self._plan.crafted[row]
                topic, partition = TOPICS.index(crafted.topic), self._crafted_partitions[row]
                key = crafted.key
            self._topic[position], self._partition[position] = topic, partition
            batches[topic, partition].append((position, key, value))
        await asyncio.gather(*(self._send_to(*place, some) for place, some in batches.items()))

    async def _send_to(
        self, topic: int, partition: int, records: list[tuple[int, bytes | None, bytes | None]]
    ) -> None:
        batch, positions = self._producer.create_batch(), list[int]()
        for position, key, value in records:
            if batch.append(key=key, value=value, timestamp=None) is None:
                await self._submit(topic, partition, batch, positions)
                batch, positions = self._producer.create_batch(), []
                batch.append(key=key, value=value, timestamp=None)
            positions.append(position)
        await self._submit(topic, partition, batch, positions)

    async def _submit(self, topic: int, partition: int, batch: Any, positions: list[int]) -> None:
        delivery = await self._producer.send_batch(batch, self._names[topic], partition=partition)
        self._deliveries.append((positions, delivery))

    def _sent(self) -> pa.Table:
        plan = self._plan
        of_source = plan.fate <= Fate.REPEAT
        event_rows = pa.array(np.where(of_source, plan.row, 0), mask=~of_source)
        reasons: NDArray[np.object_] = np.full(len(plan), None, dtype=object)
        for position in np.flatnonzero(~of_source):
            reasons[position] = plan.crafted[plan.row[position]].reason
        columns = {
            "topic": pa.array(TOPICS).take(pa.array(self._topic)),
            "partition": self._partition,
            "offset": self._offset,
            "fate": plan.fate,
            "reason": pa.array(reasons, pa.string()),
        }
        for field in SENT_SCHEMA:
            if field.name not in columns:
                columns[field.name] = plan.events[field.name].take(event_rows)
        return pa.table(columns, schema=SENT_SCHEMA)


def pace(plan: Plan, events_per_s: float | None, speed_up: float | None) -> Pace | None:
    """How fast to send `plan`: see `replay`; None sends as fast as Kafka takes it."""
    if events_per_s is not None:
        return lambda elapsed_s: int(elapsed_s * events_per_s) + 1
    if speed_up is None:
        return None
    times = plan.events["occurred_at_ms"].to_numpy()
    of_source = plan.fate <= Fate.REPEAT
    # A record that comes after its place, or is no event of the source, goes with the one before.
    at_ms = np.where(of_source, times[np.where(of_source, plan.row, 0)], times[0])
    due_s = (np.maximum.accumulate(at_ms) - times[0]) / 1000 / speed_up
    return lambda elapsed_s: int(np.searchsorted(due_s, elapsed_s, side="right"))


def _partition(key: bytes | None, partitions: range) -> int:
    if key is None:
        return 0
    chosen: int = DefaultPartitioner()(key, list(partitions), list(partitions))
    return chosen
