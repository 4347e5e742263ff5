"""Lands the topic `intent-features` in the offline store: `intentstream sink`.

Records are held by partition until it is time, landed (see `features.landing`), and only then is
the offset behind them committed. So after a crash the records since are delivered again, and what
has landed of them is recognised by the files. Any number of sinks may share the partitions.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections import defaultdict
from contextlib import AsyncExitStack
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from features.definitions import intent_features
from features.landing import PartitionLanding, Published
from features.store import source_folder
from stream import metrics
from stream.exceptions import BrokerUnavailable
from stream.health import HealthServer
from stream.kafka import client_options, start
from stream.lag import LagReader
from stream.preflight import check_topics
from stream.topics import INTENT_FEATURES
from stream.watchdog import Stalls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream.settings import Settings

_log = logging.getLogger(__name__)

_FETCH_MS: Final = 500
_WATCH_INTERVAL_S: Final = 5.0
_STALLED_INTERVALS: Final = 3


def group_of(settings: Settings) -> str:
    """The sink's consumer group."""
    return f"{settings.consumer_group}-sink"


async def run_sink(settings: Settings) -> None:
    """Land rows until SIGTERM or SIGINT; then land what is held, commit it and leave.

    Raises:
        TopicsMissing: when the topics have not been made.
        TopicsMisconfigured: when a topic would lose what it is given.
        BrokerUnavailable: when Kafka does not answer at the start.
    """
    await check_topics(settings)
    ends = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ends.set)
    async with Sink(settings) as sink:
        await sink.run(ends)


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
        self._consumer = AIOKafkaConsumer(
            **client_options(settings),
            group_id=group_of(settings),
            group_instance_id=settings.instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=settings.session_timeout_s * 1000,
            heartbeat_interval_ms=settings.session_timeout_s * 250,
        )
        self._held: dict[TopicPartition, list[Published]] = defaultdict(list)
        self._landings: dict[TopicPartition, PartitionLanding] = {}
        # Partitions are given away between landings. No record is fetched meanwhile: until the new
        # assignment is there, aiokafka hands out none.
        self._turn = asyncio.Lock()
        self._lands = True
        self._stalls = Stalls(after_s=_STALLED_INTERVALS * settings.sink_interval_s + 60)
        self._edges = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await start(self._consumer, self._settings)
        self._edges.push_async_callback(self._consumer.stop)
        self._consumer.subscribe([self._topic], listener=self)
        endpoint = self._settings.model_copy(update={"metrics_port": self._settings.sink_port})
        await self._edges.enter_async_context(
            HealthServer(endpoint, is_ready=self.is_ready, is_alive=self.is_alive)
        )
        watch = asyncio.create_task(self._watch())
        self._edges.callback(watch.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._edges.aclose()

    def is_ready(self) -> bool:
        """Whether the last rows could be landed."""
        return self._lands

    def is_alive(self) -> bool:
        """False when a partition has had lag without a commit for long."""
        return not self._stalls.stalled(monotonic())

    async def run(self, ends: asyncio.Event) -> None:
        """Fetch and land until `ends` is set; then land what is held."""
        interval_s = self._settings.sink_interval_s
        due = monotonic() + interval_s
        ended = asyncio.create_task(ends.wait())
        while not ended.done():
            # While partitions are dealt out anew, a fetch waits for as long as that takes.
            fetch = asyncio.create_task(self._fetch())
            await asyncio.wait((fetch, ended), return_when=asyncio.FIRST_COMPLETED)
            if not fetch.done():
                fetch.cancel()
                break
            await fetch
            is_full = self._room() == 0 and self._lands
            if is_full or monotonic() >= due:
                async with self._turn:
                    await self._land(list(self._held))
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

    def _room(self) -> int:
        return max(self._settings.sink_max_rows - sum(map(len, self._held.values())), 0)

    async def _fetch(self) -> None:
        room = self._room()
        if room == 0:
            await asyncio.sleep(_FETCH_MS / 1000)
            return
        fetched = await self._consumer.getmany(timeout_ms=_FETCH_MS, max_records=room)
        for place, records in fetched.items():
            self._held[place] += [Published(record.offset, record.value) for record in records]

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
        if done:
            try:
                await self._consumer.commit(done)
            except KafkaError as error:
                # The records come again, to us or to the partitions' next owner, and are known.
                _log.warning("The offsets %s could not be committed: %r", done, error)

    async def _give_up(self, places: Iterable[TopicPartition]) -> None:
        await self._land([place for place in places if place in self._held])
        for place in places:
            self._held.pop(place, None)
            if place in self._landings:
                self._landings.pop(place).close()

    def _landing(self, place: TopicPartition) -> PartitionLanding:
        if place not in self._landings:
            self._landings[place] = PartitionLanding(
                self._folder, place.topic, place.partition, self._repeat_hours
            )
        return self._landings[place]

    async def _watch(self) -> None:
        """Tell the group's lag, by a client of its own, and whether the group gets anywhere."""
        while True:
            try:
                async with LagReader(self._settings) as reader:
                    while True:
                        lags = await reader.read(group_of(self._settings), [self._topic])
                        # Other sinks' partitions are their business.
                        owned = {(at.topic, at.partition) for at in self._consumer.assignment()}
                        own = [lag for lag in lags if (lag.topic, lag.partition) in owned]
                        self._stalls.observe(own, monotonic(), is_held=not self._lands)
                        for lag in lags:
                            labels = (lag.group, lag.topic, str(lag.partition))
                            metrics.LAG.labels(*labels).set(lag.lag)
                        await asyncio.sleep(_WATCH_INTERVAL_S)
            except BrokerUnavailable as error:
                _log.warning("%s", error)
                self._stalls.observe([], monotonic(), is_held=False)
                await asyncio.sleep(_WATCH_INTERVAL_S)
