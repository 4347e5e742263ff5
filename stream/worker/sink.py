"""Lands the topic `intent-features` in the offline store: `intentstream sink`.

Records are held by partition until it is time, landed (see `features.offline.landing`), and only
then is the offset behind them committed. So after a crash the records since are delivered again,
and what has landed of them is recognised by the files. Any number of sinks may share the
partitions.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import threading
from collections import defaultdict
from contextlib import AsyncExitStack
from time import monotonic, time
from typing import TYPE_CHECKING, Final, Self

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from features.offline.erasures import joined, notes
from features.offline.landing import PartitionLanding, Published
from features.offline.merging import merge
from features.offline.rewriting import rewrite
from features.registry.places import source_folder
from features.schema.views import intent_features
from stream import metrics
from stream.domain.topics import INTENT_FEATURES
from stream.exceptions import BrokerError, InstanceIdTakenError
from stream.kafka.connection import answering, client_options, start
from stream.kafka.consumer import Consumer
from stream.kafka.lag import LagReader
from stream.kafka.membership import give_way
from stream.kafka.preflight import check_topics
from stream.kafka.reachability import Reachability
from stream.kafka.salvage import positions
from stream.logs import throttle_clients
from stream.worker.health import HealthServer
from stream.worker.watchdog import MissingTopics, Stalls, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream.kafka.lag import PartitionLag
    from stream.settings import Settings

_log = logging.getLogger(__name__)

_FETCH_MS: Final = 500
_WATCH_INTERVAL_S: Final = 5.0
_WATCH_PATIENCE_S: Final = 5.0
_STALLED_INTERVALS: Final = 3
_BUSY_S: Final = 60.0


def group_of(settings: Settings) -> str:
    """The sink's consumer group."""
    return f"{settings.consumer_group}-sink"


async def run_sink(settings: Settings) -> None:
    """Land rows until SIGTERM or SIGINT; then land what is held, commit it and leave.

    Raises:
        TopicsMissingError: when the topics have not been made.
        TopicsMisconfiguredError: when a topic would lose what it is given.
        BrokerUnavailableError: when Kafka does not answer at the start.
        InstanceIdTakenError: when another sink has taken this one's name.
    """
    throttle_clients()
    await check_topics(settings)
    ends = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ends.set)
    async with Sink(settings) as sink:
        await sink.run(ends)


class LandingProgress:
    """Up to when everything that was published has been landed, by whichever sink."""

    def __init__(self) -> None:
        self.passed_ms = 0
        """Unix milliseconds of this clock; 0 while it isn't known."""
        self._ends: dict[tuple[str, int], int] = {}
        self._asked_ms = 0

    def observe(self, lags: Sequence[PartitionLag], asked_ms: int) -> None:
        """Take in the lag of all partitions, which was read after `asked_ms`."""
        committed = {(lag.topic, lag.partition): lag.committed or 0 for lag in lags}
        if all(committed.get(place, 0) >= end for place, end in self._ends.items()):
            self.passed_ms, self._asked_ms = self._asked_ms, asked_ms
            self._ends = {(lag.topic, lag.partition): lag.end for lag in lags}


class Sink(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of the sink's group, with its metrics and health endpoint.

    While rows can't be landed (the disk is full, a file that is there can't be read, or another
    process has a partition's files) it holds what it has, `sink_max_rows` at most, is not ready,
    and tries again every `sink_interval_s`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.topic(INTENT_FEATURES)
        self._folder = source_folder(settings, intent_features)
        lateness_s = settings.allowed_lateness_s + settings.max_ahead_s
        self._repeat_hours = math.ceil(lateness_s / 3600) + 1
        self._consumer = Consumer(
            **client_options(settings),
            group_id=group_of(settings),
            group_instance_id=settings.instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=settings.session_timeout_s * 1000,
            heartbeat_interval_ms=settings.session_timeout_s * 250,
        )
        self._held: dict[TopicPartition, list[Published]] = defaultdict(list)
        self._reached: dict[TopicPartition, int] = {}
        """Where each partition is fetched from next; markers of transactions lie before, too."""
        self._committed: dict[TopicPartition, int] = {}
        self._landings: dict[TopicPartition, PartitionLanding] = {}
        # Partitions are given away between landings. No record is fetched meanwhile: until the new
        # assignment is there, aiokafka hands out none.
        self._turn = asyncio.Lock()
        self._lands = True
        self._missing = MissingTopics()
        self._progress = LandingProgress()
        self._kafka = Reachability()
        self._stalls = Stalls(after_s=_STALLED_INTERVALS * settings.sink_interval_s + 60)
        self._ousted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if settings.instance_id:
            give_way(self._consumer, group_of(settings), settings.instance_id, self._on_name_taken)
        self._edges = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await start(self._consumer, self._settings)
        self._edges.push_async_callback(self._consumer.stop)
        self._consumer.subscribe([self._topic], listener=self)
        endpoint = self._settings.model_copy(update={"metrics_port": self._settings.sink_port})
        await self._edges.enter_async_context(
            HealthServer(endpoint, is_ready=self.is_ready, is_alive=self.is_alive)
        )
        for task in (self._watch(), self._rewrite(), self._merge()):
            self._edges.callback(asyncio.create_task(task).cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._edges.aclose()

    def is_ready(self) -> bool:
        """Whether the last rows could be landed, Kafka answers, and has the topic."""
        return self._lands and not self._missing and self._kafka.is_up

    def is_alive(self) -> bool:
        """False when a partition has had lag without a commit for long."""
        return not self._stalls.stalled(monotonic())

    async def run(self, ends: asyncio.Event) -> None:
        """Fetch and land until `ends` is set; then land what is held.

        Raises:
            InstanceIdTakenError: when another sink has taken this one's name and partitions.
        """
        interval_s = self._settings.sink_interval_s
        due = monotonic() + interval_s
        ended = asyncio.create_task(ends.wait())
        while not ended.done():
            # While partitions are dealt out anew, a fetch waits for as long as that takes.
            fetch = asyncio.create_task(self._fetch())
            events = (fetch, ended, self._ousted)
            await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            if self._ousted.done():
                fetch.cancel()
                await self._ousted
            if not fetch.done():
                fetch.cancel()
                break
            await fetch
            is_full = self._room() == 0 and self._lands
            if is_full or monotonic() >= due:
                async with self._turn:
                    await self._land(list(self._held))
                    await self._pass_markers()
                due = monotonic() + interval_s
        ended.cancel()
        async with self._turn:
            await self._give_up(list(self._held))

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Land what is held of the partitions before another sink gets them."""
        async with self._turn:
            await self._give_up(list(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing is done before there is something to land."""

    def _on_name_taken(self, error: InstanceIdTakenError) -> None:
        if not self._ousted.done():
            self._ousted.set_exception(error)

    def _room(self) -> int:
        return max(self._settings.sink_max_rows - sum(map(len, self._held.values())), 0)

    async def _fetch(self) -> None:
        room = self._room()
        if room == 0:
            await asyncio.sleep(_FETCH_MS / 1000)
            return
        fetched = await self._consumer.getmany(timeout_ms=_FETCH_MS, max_records=room)
        for place, records in fetched.items():
            self._held[place] += [
                Published(record.offset, record.value, record.key, record.headers)
                for record in records
            ]
        self._reached = positions(self._consumer)

    async def _land(self, places: Iterable[TopicPartition]) -> None:
        """Land what is held of the partitions that this process owns, then commit behind it."""
        done: dict[TopicPartition, int] = {}
        lands = True
        for place in places:
            landing = self._landing(place)
            records = self._held[place]
            try:
                if not landing.own():
                    raise BlockingIOError("another process has the partition's files")
                told = await asyncio.to_thread(landing.land, records)
            except OSError as error:
                _log.error("The rows of %s can't be landed and are held: %r", place, error)
                lands = False
                continue
            _log.info("%s, up to offset %d: %s", place, records[-1].offset, dict(told))
            metrics.SINK_FILES.inc(told.pop("files", 0))
            for outcome, count in told.items():
                metrics.SINK_RECORDS.labels(outcome).inc(count)
            done[place] = records[-1].offset + 1
            del self._held[place]
        self._lands = lands
        await self._commit(done)

    async def _pass_markers(self) -> None:
        """Commit where nothing is held: behind the last record, transactions leave markers."""
        await self._commit(
            {
                place: offset
                for place, offset in self._reached.items()
                if place not in self._held and offset > self._committed.get(place, 0)
            }
        )

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        if not offsets:
            return
        try:
            await self._consumer.commit(offsets)
            self._committed.update(offsets)
        except KafkaError as error:
            # The records come again, to us or to the partitions' next owner, and are known.
            _log.warning("The offsets %s could not be committed: %r", offsets, error)

    async def _give_up(self, places: Iterable[TopicPartition]) -> None:
        await self._land([place for place in places if place in self._held])
        for place in places:
            self._held.pop(place, None)
            self._reached.pop(place, None)
            self._committed.pop(place, None)
            if place in self._landings:
                self._landings.pop(place).close()

    def _landing(self, place: TopicPartition) -> PartitionLanding:
        if place not in self._landings:
            self._landings[place] = PartitionLanding(
                self._folder, place.topic, place.partition, self._repeat_hours
            )
        return self._landings[place]

    async def _begin_anew(self, lag: PartitionLag, offset: int) -> None:
        """Land what is held of a log that was exchanged for another, and read that one."""
        place = TopicPartition(lag.topic, lag.partition)
        _log.error(
            "%s is another log than the one that was read up to offset %d: it was made anew, "
            "restored or cut short. It is read from offset %d",
            *(place, lag.committed, offset),
        )
        metrics.LOG_RESETS.labels(lag.topic, str(lag.partition)).inc()
        async with self._turn:
            if place in self._held:
                await self._land([place])
            if place in self._held:
                return  # they can't be landed now
            try:
                self._consumer.seek(place, offset)
                await self._consumer.commit({place: offset})
                self._committed[place] = offset
            except KafkaError as error:
                _log.warning("%s can't be read from its start yet: %r", place, error)

    async def _rewrite(self) -> None:
        """Take rows of erased profiles out of landed files, at the start and then at intervals.

        The first time waits until what had been published by the start has landed.
        """
        interval_s = self._settings.erasure_rewrite_s
        ends = False

        def give_up() -> None:
            nonlocal ends
            ends = True

        self._edges.callback(give_up)
        due = monotonic() + interval_s
        while not self._progress.passed_ms and monotonic() < due:
            await asyncio.sleep(min(_WATCH_INTERVAL_S, interval_s))
        while True:
            passed_ms = self._progress.passed_ms
            try:
                told = await asyncio.to_thread(rewrite, self._folder, passed_ms, lambda: ends)
                waiting = await asyncio.to_thread(notes, self._folder)
            except OSError as error:
                _log.error("Rows of erased profiles stay in the landed files: %r", error)
            else:
                if told:
                    _log.info("Rows of erased profiles: %s", told._asdict())
                    metrics.SINK_ERASED_ROWS.inc(told.rows)
                metrics.SINK_ERASURES.set(len(joined(waiting)))
                oldest_ms = min((note.noted_at_ms for note in waiting), default=0)
                metrics.SINK_OLDEST_ERASURE.set(oldest_ms / 1000)
                if waiting and not told:
                    # Files are being merged, or another sink does it; so it isn't known to be done.
                    await asyncio.sleep(min(_BUSY_S, interval_s))
                    continue
            await asyncio.sleep(interval_s)

    async def _merge(self) -> None:
        """Merge the small files of days that are over, day by day, and look again at intervals."""
        interval_s = self._settings.sink_merge_after_s
        if not interval_s:
            return
        ends = threading.Event()
        self._edges.callback(ends.set)
        while True:
            try:
                told = await asyncio.to_thread(merge, self._folder, interval_s, ends)
            except OSError as error:
                _log.error("The small files of past days stay: %r", error)
                told = None
            if told:
                _log.info("Merged: %s", told._asdict())
            else:
                await asyncio.sleep(interval_s)

    async def _watch(self) -> None:
        """Tell the group's lag, by a client of its own, and whether the group gets anywhere."""
        while True:
            try:
                async with LagReader(self._settings) as reader:
                    while True:
                        asked_ms = round(time() * 1000)
                        async with answering(self._settings, within_s=_WATCH_PATIENCE_S):
                            missing = await reader.missing([self._topic])
                            lags = await reader.read(group_of(self._settings), [self._topic])
                        self._kafka.answered()
                        self._missing.observe(missing)
                        self._progress.observe(lags, asked_ms)
                        # Other sinks' partitions are their business.
                        owned = {(at.topic, at.partition) for at in self._consumer.assignment()}
                        own = [lag for lag in lags if (lag.topic, lag.partition) in owned]
                        self._stalls.observe(own, monotonic(), is_held=not self._lands)
                        tell(lags)
                        for lag in own:
                            if lag.replaced_at is not None:
                                await self._begin_anew(lag, lag.replaced_at)
                        await asyncio.sleep(_WATCH_INTERVAL_S)
            except BrokerError as error:
                self._kafka.failed(error)
                self._stalls.observe([], monotonic(), is_held=False)
                await asyncio.sleep(_WATCH_INTERVAL_S)
