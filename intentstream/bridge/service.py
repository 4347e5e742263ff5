"""A member of the bridge's group: what it fetches of their topic goes to ours, then is committed.

Records of a partition go out in their order, and those of a profile into one partition, by
murmur2, as our own producers put them. An offset is committed once all that came of the records
before it was acknowledged; so after a crash some come twice, which taking in makes harmless.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import Counter
from contextlib import AsyncExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

import orjson
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from intentstream.bridge.values import decoder
from stream import metrics
from stream.adapters.adapter import Adapted, passed_over
from stream.adapters.registry import reader
from stream.domain.event_types import BY_NAME
from stream.domain.events import check_readable
from stream.domain.topics import EVENT_TOPICS
from stream.exceptions import (
    BadRecordError,
    BrokerError,
    InvalidSettingsError,
    RegistryUnavailableError,
    ShuttingDownError,
    TopicsMissingError,
)
from stream.kafka.connection import answering, client_options, partitions_of, running, start
from stream.kafka.consumer import Consumer
from stream.kafka.deadletters import dead_letter
from stream.kafka.lag import LagReader
from stream.kafka.outbox import Outbox, Outgoing
from stream.kafka.partitioners import partition_of
from stream.kafka.reachability import Reachability
from stream.kafka.salvage import positions
from stream.logs import throttle_clients
from stream.traces import trace_headers
from stream.worker.health import HealthServer
from stream.worker.retrying import Retries
from stream.worker.watchdog import MissingTopics, Stalls, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream.settings import Settings

_log = logging.getLogger(__name__)

_FETCH_MS: Final = 500
_MOST_RECORDS: Final = 2000
_WATCH_INTERVAL_S: Final = 5.0
_WATCH_PATIENCE_S: Final = 5.0
_LONGEST_OUTAGE_S: Final = 7 * 86_400
"""How long a bridge may fetch nothing because a dependency holds it."""

_DLQ_CONFIG: Final = {"max.message.bytes": str(2 * 1024 * 1024)}


def group_of(settings: Settings) -> str:
    """The bridge's consumer group: one for each of their topics."""
    return f"{settings.consumer_group}-bridge-{settings.bridge_topic}"


def dlq_of(settings: Settings) -> str:
    """Where the dead letters of their topic go."""
    return f"{settings.bridge_topic}.dlq"


async def run_bridge(settings: Settings) -> None:
    """Bridge until SIGTERM or SIGINT; then finish what is begun, commit it and leave.

    Raises:
        InvalidSettingsError: when the settings name no topic of theirs.
        UnknownAdapterError: when there is no such adapter.
        AdapterOptionsError: when an option of it is unknown, missing or wrong.
        TopicsMissingError: when their topic or ours doesn't exist.
        BrokerUnavailableError: when Kafka does not answer at the start.
        DeliveryFailedError: when Kafka takes no more from this process; a new one goes on.
    """
    throttle_clients()
    ends = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ends.set)
    await check_topics(settings)
    async with Bridge(settings, ends) as bridge:
        await bridge.run()


async def check_topics(settings: Settings) -> None:
    """Check that their topic and ours are there; make that of the dead letters if it isn't.

    Raises:
        InvalidSettingsError: when the settings name no topic of theirs, or one of ours.
        TopicsMissingError: when a topic doesn't exist.
        BrokerUnavailableError: when Kafka does not answer.
    """
    ours = [settings.topic(name) for name in EVENT_TOPICS]
    if not settings.bridge_topic or settings.bridge_topic in ours:
        raise InvalidSettingsError(
            f"INTENT_BRIDGE_TOPIC is {settings.bridge_topic!r}; it must name a topic of theirs"
        )
    names = (settings.bridge_topic, dlq_of(settings), *ours)
    count = Counter(place.topic for place in await partitions_of(settings, *names))
    missing = [name for name in names if not count[name] and name != dlq_of(settings)]
    if missing:
        raise TopicsMissingError(
            f"no such topics: {', '.join(missing)}; `intentstream topics` makes ours, and "
            "INTENT_BRIDGE_TOPIC names theirs"
        )
    if not count[dlq_of(settings)]:
        dlq = NewTopic(
            dlq_of(settings),
            num_partitions=count[settings.bridge_topic],
            replication_factor=settings.topic_replicas,
            topic_configs=_DLQ_CONFIG,
        )
        async with running(AIOKafkaAdminClient, settings) as admin:
            await admin.create_topics([dlq])


class Bridge(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of the bridge's group, with its metrics and health endpoint.

    While the schema registry or Kafka is away it holds what it has, is not ready, and tries again.

    Args:
        settings: everything that it needs to know.
        ends: set when it is to leave.
    """

    def __init__(self, settings: Settings, ends: asyncio.Event) -> None:
        self._settings = settings
        self._ends = ends
        self._read = reader(settings.bridge_adapter, settings.bridge_options)
        self._decode = decoder(settings)
        self._consumer = Consumer(
            **client_options(settings),
            group_id=group_of(settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=settings.session_timeout_s * 1000,
            heartbeat_interval_ms=settings.session_timeout_s * 250,
            max_poll_interval_ms=_LONGEST_OUTAGE_S * 1000,
        )
        self._outbox = Outbox(settings)
        # Their topic's name has no prefix of ours.
        self._dead_letters = Outbox(settings.model_copy(update={"topic_prefix": ""}))
        self._turn = asyncio.Lock()
        self._generation = 0
        """Grows when partitions are given away: what was fetched around that may be another's."""
        self._committed: dict[TopicPartition, int] = {}
        self._is_waited_for = False
        self._retries = Retries(lambda: self._ends.is_set() or self._is_waited_for)
        self._missing = MissingTopics()
        self._kafka = Reachability()
        self._stalls = Stalls()
        self._edges = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._edges.enter_async_context(self._outbox)
        await self._edges.enter_async_context(self._dead_letters)
        await start(self._consumer, self._settings)
        self._edges.push_async_callback(self._consumer.stop)
        self._consumer.subscribe([self._settings.bridge_topic], listener=self)
        endpoint = self._settings.model_copy(update={"metrics_port": self._settings.bridge_port})
        await self._edges.enter_async_context(
            HealthServer(endpoint, is_ready=self.is_ready, is_alive=self.is_alive)
        )
        self._edges.callback(asyncio.create_task(self._watch()).cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._edges.aclose()

    def is_ready(self) -> bool:
        """Whether nothing holds it, Kafka answers, and has the topics."""
        return self._retries.waits_for is None and not self._missing and self._kafka.is_up

    def is_alive(self) -> bool:
        """False when a partition has had lag without a commit for long, and nothing holds it."""
        return not self._stalls.stalled(monotonic())

    async def run(self) -> None:
        """Bridge until it is to leave.

        Raises:
            DeliveryFailedError: when Kafka takes no more from this process.
        """
        ended = asyncio.create_task(self._ends.wait())
        while not ended.done():
            generation = self._generation
            fetch = asyncio.create_task(
                self._consumer.getmany(timeout_ms=_FETCH_MS, max_records=_MOST_RECORDS)
            )
            await asyncio.wait((fetch, ended), return_when=asyncio.FIRST_COMPLETED)
            if not fetch.done():
                fetch.cancel()
                break
            records = [record for some in (await fetch).values() for record in some]
            reached = positions(self._consumer)
            async with self._turn:
                if self._generation == generation:
                    await self._carry(records, reached)
                else:
                    self._go_back(records)
        ended.cancel()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Finish what is begun; what a dependency holds is left to the partitions' next owner."""
        self._is_waited_for = True
        async with self._turn:
            self._generation += 1
            self._committed.clear()
        self._is_waited_for = False

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing is done before there is something to carry."""

    async def _carry(self, records: Sequence[Any], reached: dict[TopicPartition, int]) -> None:
        """Carry records over, then commit where the consumer has got to."""
        told: Counter[str] = Counter()
        try:
            if records:
                await self._deliver(records, told)
        except ShuttingDownError as error:
            _log.warning("%d records are left to whoever is next: %s", len(records), error)
            self._go_back(records)
            return
        for outcome, count in told.items():
            metrics.BRIDGE_RECORDS.labels(outcome).inc(count)
        await self._commit(
            {
                place: offset
                for place, offset in reached.items()
                if self._committed.get(place) != offset
            }
        )

    async def _deliver(self, records: Sequence[Any], told: Counter[str]) -> None:
        """Deliver what comes of records.

        Raises:
            ShuttingDownError: when a dependency is away and it is time to leave.
        """
        counts = {topic: await self._partitions(self._outbox, topic) for topic in EVENT_TOPICS}
        events: list[Outgoing] = []
        letters: list[Outgoing] = []
        for record in records:
            try:
                found = await self._adapted(record)
            except BadRecordError as error:
                metrics.DEAD_LETTERS.labels(record.topic, error.reason).inc()
                letters.append(dead_letter(record.topic, record, record.timestamp, error))
                continue
            told["passed_over" if found.passed_over else "bridged"] += 1
            if found.passed_over:
                metrics.BRIDGE_PASSED_OVER.labels(found.passed_over).inc()
            for event in found.events:
                topic, key = BY_NAME[event["event_type"]].topic, event["profile_id"].encode()
                partition = partition_of(key, "murmur2", counts[topic])
                value, headers = orjson.dumps(event), trace_headers(record.headers)
                events.append(Outgoing(topic, partition, key, value, headers))
        if events:
            await self._retries.retry("kafka", lambda: self._outbox.deliver(events))
        if letters:
            told["dead_letter"] += len(letters)
            count = await self._partitions(self._dead_letters, letters[0].topic)
            placed = [one._replace(partition=one.partition % count) for one in letters]
            await self._retries.retry("kafka", lambda: self._dead_letters.deliver(placed))
        for topic, count in Counter(one.topic for one in events).items():
            metrics.BRIDGE_EVENTS.labels(topic).inc(count)

    async def _adapted(self, record: Any) -> Adapted:
        """What comes of a record.

        Raises:
            BadRecordError: when it is broken.
            ShuttingDownError: when its schema can't be had and it is time to leave.
        """
        check_readable(record.value, record.headers)
        if record.value is None:
            return passed_over("no value")
        try:
            value = await self._decode(record.value)
        except RegistryUnavailableError:
            value = await self._retries.retry("schema registry", lambda: self._decode(record.value))
        return self._read(value)

    async def _partitions(self, outbox: Outbox, topic: str) -> int:
        return await self._retries.retry("kafka", lambda: outbox.partitions(topic))

    def _go_back(self, records: Sequence[Any]) -> None:
        """Have records fetched again, should nobody else get their partitions."""
        first: dict[TopicPartition, int] = {}
        for record in records:
            first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        for place in first.keys() & self._consumer.assignment():
            self._consumer.seek(place, first[place])

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        if not offsets:
            return
        try:
            await self._consumer.commit(offsets)
            self._committed.update(offsets)
        except KafkaError as error:
            # The records come again, to us or to the partitions' next owner.
            _log.warning("The offsets %s could not be committed: %r", offsets, error)

    async def _watch(self) -> None:
        """Tell the group's lag, by a client of its own, and whether the group gets anywhere."""
        theirs, group = self._settings.bridge_topic, group_of(self._settings)
        topics = [theirs, *map(self._settings.topic, EVENT_TOPICS)]
        while True:
            try:
                async with LagReader(self._settings) as lag_reader:
                    while True:
                        async with answering(self._settings, within_s=_WATCH_PATIENCE_S):
                            missing = await lag_reader.missing(topics)
                            lags = await lag_reader.read(group, [theirs])
                        self._kafka.answered()
                        self._missing.observe(missing)
                        owned = {(at.topic, at.partition) for at in self._consumer.assignment()}
                        own = [lag for lag in lags if (lag.topic, lag.partition) in owned]
                        is_held = self._retries.waits_for is not None
                        self._stalls.observe(own, monotonic(), is_held=is_held)
                        tell(lags)
                        await asyncio.sleep(_WATCH_INTERVAL_S)
            except BrokerError as error:
                self._kafka.failed(error)
                self._stalls.observe([], monotonic(), is_held=False)
                await asyncio.sleep(_WATCH_INTERVAL_S)
