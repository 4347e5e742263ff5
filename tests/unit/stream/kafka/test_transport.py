"""The consumer neither loses records between Kafka and the agent nor invents commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.structs import OffsetAndMetadata, OffsetAndTimestamp
from faust.types import TP

from stream.exceptions import LogReplacedError
from stream.kafka.bookmark import Bookmark
from stream.kafka.transport import LeanConsumer, LeanConsumerThread, LeanTransport

EVENTS = TP("events", 0)


class Partition:
    """One partition of events, through as much of Faust's consumer thread as the consumer uses.

    A fetch takes what lies behind the position once `answers` is set; a seek waits for `seeks`.
    What lies between the last record and `end` are markers of transactions.
    """

    def __init__(
        self, offsets: range, committed: int | None = None, end: int | None = None
    ) -> None:
        self.offsets = list(offsets)
        self.committed = committed
        self.start = offsets.start
        self.end = offsets.stop if end is None else end
        self.position = committed or 0
        self.goes_on_at: int | None = None
        self.lost: set[int] = set()
        self.log: list[str] = []
        self.answers, self.seeks, self.commits = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for event in (self.answers, self.seeks, self.commits):
            event.set()

    async def getmany(self, active: set[TP], timeout: float) -> dict[TP, list[Any]]:
        self.log.append("fetch")
        await asyncio.sleep(0)
        await self.answers.wait()
        found = [offset for offset in self.offsets if offset >= self.position]
        if self.position >= self.end or EVENTS not in active:
            await asyncio.sleep(timeout)
            return {}
        self.position = self.end
        arrived, self.lost = [offset for offset in found if offset not in self.lost], set()
        self.log.append("fetched")
        return {EVENTS: [_record(offset) for offset in arrived]} if arrived else {}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        self.log.append("seek")
        await self.seeks.wait()
        self.position = partitions[EVENTS]
        self.consumer._read_offset[EVENTS] = self.position or None
        self.log.append(f"sought {self.position}")

    async def bookmarks(self) -> dict[TP, Bookmark]:
        return {} if self.committed is None else {EVENTS: Bookmark(self.committed)}

    async def replaced(self, marks: Mapping[TP, Bookmark]) -> dict[TP, int]:
        return dict.fromkeys(marks, self.goes_on_at) if self.goes_on_at is not None else {}

    async def earliest_offsets(self, *places: TP) -> dict[TP, int]:
        return dict.fromkeys(places, self.start)

    def positions(self) -> dict[TP, int]:
        return {EVENTS: self.position}

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        await self.commits.wait()
        self.log.append(f"commit {offsets[EVENTS]}")
        return False

    def assignment(self) -> set[TP]:
        return {EVENTS}

    consumer: LeanConsumer


@asynccontextmanager
async def reading(partition: Partition, callback: Any) -> AsyncIterator[Any]:
    """A consumer that owns the partition and delivers to `callback`, its flow stopped at first."""
    app: Any = faust.App("unit", broker="kafka://unused", store="memory://", web_enabled=False)
    app.transport = LeanTransport(app.conf.broker_consumer, app)
    app.topics._acking_topics.add(EVENTS.topic)

    async def nothing(*_: Any) -> None:
        pass

    app._producer = SimpleNamespace(flush=nothing)
    consumer: Any = LeanConsumer(
        app.transport,
        callback=callback,
        on_partitions_revoked=nothing,
        on_partitions_assigned=nothing,
    )
    consumer._thread = partition
    partition.consumer = consumer
    await consumer.on_partitions_assigned({EVENTS})
    fetcher: Any = SimpleNamespace(_stopped=asyncio.Event())
    drain = asyncio.create_task(consumer._drain_messages(fetcher))
    try:
        yield consumer
    finally:
        fetcher._stopped.set()
        consumer.resume_flow()
        await asyncio.wait_for(drain, timeout=60)


def _record(offset: int) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(
        topic=EVENTS.topic,
        partition=EVENTS.partition,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=b"",
        value=b"",
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=(),
    )


class Delivered(list[int]):
    """The offsets that were delivered, in their order."""

    async def __call__(self, message: Any) -> None:
        self.append(message.offset)

    async def reach(self, many: int) -> None:
        """Wait until so many were."""
        async with asyncio.timeout(60):
            while len(self) < many:
                await asyncio.sleep(0.001)


async def settled() -> None:
    """Let everything happen that waits for nothing."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_nothing_is_read_until_the_flow_is_resumed() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(3)), Delivered()
        async with reading(partition, delivered) as consumer:
            await settled()
            assert partition.log == []
            consumer.resume_flow()
            await delivered.reach(3)
            assert delivered == [0, 1, 2]

    asyncio.run(scene())


def test_a_seek_waits_for_the_fetch_under_way() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(3)), Delivered()
        async with reading(partition, delivered) as consumer:
            partition.answers.clear()
            consumer.resume_flow()
            await settled()
            consumer.stop_flow()
            seek = asyncio.create_task(consumer.seek_wait({EVENTS: 1}))
            await settled()
            assert partition.log == ["fetch"]
            partition.answers.set()
            await seek
            assert partition.log == ["fetch", "fetched", "seek", "sought 1"]
            consumer.resume_flow()
            await delivered.reach(2)
            assert delivered == [1, 2]

    asyncio.run(scene())


def test_no_fetch_begins_during_a_seek() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(3)), Delivered()
        async with reading(partition, delivered) as consumer:
            partition.seeks.clear()
            seek = asyncio.create_task(consumer.seek_wait({EVENTS: 2}))
            consumer.resume_flow()
            await settled()
            assert partition.log == ["seek"]
            partition.seeks.set()
            await seek
            await delivered.reach(1)
            assert delivered == [2]

    asyncio.run(scene())


def test_what_was_fetched_and_left_is_read_again_from_the_committed_offset() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(6), committed=2), Delivered()
        blocked = asyncio.Event()

        async def waits(message: Any) -> None:
            if not blocked.is_set() and message.offset == 4:
                blocked.set()
                await asyncio.Event().wait()
            await delivered(message)

        async with reading(partition, waits) as consumer:
            consumer.resume_flow()
            await blocked.wait()
            assert delivered == [2, 3]
            await consumer.perform_seek()
            consumer.resume_flow()
            await delivered.reach(6)
            assert delivered == [2, 3, 2, 3, 4, 5]

    asyncio.run(scene())


def test_a_partition_without_a_commit_is_read_again_from_its_start() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(7, 10)), Delivered()
        async with reading(partition, delivered) as consumer:
            consumer.resume_flow()
            await delivered.reach(3)
            # Faust takes this commit for done, though the broker refuses it.
            await consumer._commit_offsets({EVENTS: 10})
            await consumer.perform_seek()
            assert consumer._committed_offset[EVENTS] is None
            consumer.resume_flow()
            await delivered.reach(6)
            assert delivered == [7, 8, 9] * 2

    asyncio.run(scene())


def test_a_seek_to_committed_offsets_waits_for_the_commit_under_way() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(5), committed=1), Delivered()
        async with reading(partition, delivered) as consumer:
            partition.commits.clear()
            consumer._acked[EVENTS] = [1, 2]
            commit = asyncio.create_task(consumer.commit())
            await settled()
            seek = asyncio.create_task(consumer.perform_seek())
            await settled()
            partition.commits.set()
            await commit
            await seek
            assert consumer._committed_offset[EVENTS] == 1

    asyncio.run(scene())


def test_a_record_lost_right_behind_the_committed_offset_is_fetched_again() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(6), committed=2), Delivered()
        partition.lost = {2, 4}
        async with reading(partition, delivered) as consumer:
            await consumer.perform_seek()
            consumer.resume_flow()
            await delivered.reach(4)
            assert delivered == [2, 3, 4, 5]

    asyncio.run(scene())


def test_what_two_fetches_do_not_find_is_a_gap_in_the_log() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(8), committed=2), Delivered()
        partition.offsets = [2, 3, 6, 7]
        async with reading(partition, delivered) as consumer:
            await consumer.perform_seek()
            consumer.resume_flow()
            await delivered.reach(4)
            assert delivered == [2, 3, 6, 7]
            for offset in delivered:
                consumer._acked[EVENTS].append(offset)
            assert consumer._new_offset(EVENTS) == 8

    asyncio.run(scene())


@pytest.mark.parametrize("goes_on_at", [0, 3])
def test_of_another_log_than_was_committed_to_all_is_read_that_was_not(goes_on_at: int) -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(6), committed=100), Delivered()
        partition.goes_on_at = goes_on_at
        async with reading(partition, delivered) as consumer:
            await consumer.perform_seek()
            consumer.resume_flow()
            await delivered.reach(6 - goes_on_at)
            assert delivered == [*range(goes_on_at, 6)]
            consumer._acked[EVENTS].extend(delivered)
            assert consumer._filter_committable_offsets([EVENTS]) == {EVENTS: 6}

    asyncio.run(scene())


def test_a_log_that_begins_anew_while_it_is_read_ends_the_worker() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(6), committed=2), Delivered()
        async with reading(partition, delivered) as consumer:
            ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

            async def crash(error: BaseException) -> None:
                ended.set_result(error)

            consumer.app.crash = crash
            await consumer.perform_seek()
            consumer.resume_flow()
            await delivered.reach(4)
            partition.position = 0
            error = await asyncio.wait_for(ended, timeout=60)
            assert isinstance(error, LogReplacedError)
            assert delivered == [2, 3, 4, 5]

    asyncio.run(scene())


async def committable(consumer: Any, offset: int) -> None:
    """Commit what can be until this offset is."""
    async with asyncio.timeout(60):
        while consumer._committed_offset[EVENTS] != offset:
            can_be = consumer._filter_committable_offsets(list(consumer._acked))
            consumer._committed_offset.update(can_be)
            await asyncio.sleep(0.001)


def test_markers_at_the_log_s_end_are_acknowledged_once_all_before_them_is() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(6), committed=2, end=9), Delivered()
        async with reading(partition, delivered) as consumer:
            await consumer.perform_seek()
            consumer.resume_flow()
            await delivered.reach(4)
            async with asyncio.timeout(60):
                while consumer._read_offset[EVENTS] != 9:
                    await asyncio.sleep(0.001)
            consumer._acked[EVENTS] += [2, 3, 4]
            assert consumer._filter_committable_offsets([EVENTS]) == {EVENTS: 5}
            consumer._committed_offset[EVENTS] = 5
            assert consumer._filter_committable_offsets([EVENTS]) == {}
            consumer._acked[EVENTS].append(5)
            assert consumer._filter_committable_offsets([EVENTS]) == {EVENTS: 9}
            consumer._committed_offset[EVENTS] = 9
            partition.offsets, partition.end = [*range(6), 9, 10], 12
            await delivered.reach(6)
            consumer._acked[EVENTS] += [9, 10]
            await committable(consumer, 12)
            assert delivered == [2, 3, 4, 5, 9, 10]

    asyncio.run(scene())


def test_a_log_of_nothing_but_markers_is_acknowledged() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(3, 3), end=5), Delivered()
        async with reading(partition, delivered) as consumer:
            await consumer.perform_seek()
            consumer.resume_flow()
            await committable(consumer, 5)

    asyncio.run(scene())


def test_records_lost_at_the_log_s_end_are_fetched_again() -> None:
    async def scene() -> None:
        partition, delivered = Partition(range(6), committed=2), Delivered()
        partition.lost = {4, 5}
        async with reading(partition, delivered) as consumer:
            await consumer.perform_seek()
            consumer.resume_flow()
            await delivered.reach(4)
            assert delivered == [2, 3, 4, 5]

    asyncio.run(scene())


def test_a_marker_s_time_never_takes_the_bookmark_behind_records_done_meanwhile() -> None:
    marker_ms, record_ms = 20, 30

    class Broker:
        """Answers for a marker below offset 8 once a later record is done."""

        def __init__(self) -> None:
            self.committed: list[str] = []

        async def offsets_for_times(
            self, times: Mapping[TopicPartition, int]
        ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
            consumer.read_up_to(EVENTS, record_ms)
            is_before = times[TopicPartition(*EVENTS)] <= marker_ms
            later = OffsetAndTimestamp(7, marker_ms) if is_before else None
            return {TopicPartition(*EVENTS): later}

        async def commit(self, marks: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
            self.committed += [mark.metadata for mark in marks.values()]

    async def scene() -> None:
        nonlocal consumer
        async with reading(Partition(range(3)), Delivered()) as consumer:
            broker = Broker()
            thread: Any = LeanConsumerThread(consumer, loop=asyncio.get_running_loop())
            thread._ensure_consumer = lambda: broker
            thread.assignment = lambda: {EVENTS}
            consumer.read_up_to(EVENTS, 10)
            consumer.behind_markers.add(EVENTS)
            assert await thread._commit({EVENTS: 8})
            await settled()
            assert broker.committed == ["read_to_ms=20"]
            assert consumer.read_to_ms == {EVENTS: record_ms}

    consumer: Any = None
    asyncio.run(scene())
