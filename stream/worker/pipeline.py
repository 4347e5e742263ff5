"""One micro-batch, from raw records to published features: decode → session → infer → publish.

A profile that is to be erased goes the same way: its state is emptied, the model's cache and the
online store are made to forget it, and what happened before is not taken in again.

The order of effects is what keeps everything: the dead letters and the late events are delivered
before the state's changelog, which says that they were read; that is delivered before features are
published, and only after the publication may the caller acknowledge. A crash anywhere between
leaves unacknowledged records; their redelivery changes nothing in the state but touches the same
profiles, and every profile touched is scored and published again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import product
from time import time
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from stream import metrics
from stream.domain import codec, topics
from stream.domain.catalogue import Catalogue
from stream.domain.events import check_readable, decode, erased_profile
from stream.domain.feature_row import Erasure, IntentRow
from stream.domain.interactions import carries_state
from stream.domain.labels import hash64
from stream.domain.prediction import Intents
from stream.domain.profile_state import LogPosition, Outcome, ProfileState, Rules
from stream.domain.row_building import intent_rows
from stream.domain.window import WindowBatch, window_batch
from stream.exceptions import BadRecordError, Reason, ShuttingDownError, UnavailableError
from stream.kafka.deadletters import Record, dead_letter, late_event
from stream.kafka.outbox import Outgoing
from stream.kafka.topology import Topology
from stream.settings import Settings
from stream.worker.forwarding import broker_time_ms, forwarded
from stream.worker.kept import Kept

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.05
_LONGEST_RETRY_S: Final = 5.0

_YIELD_EVERY: Final = 64
"""Records that are taken in at a stretch, some 5 ms: batches ahead need the event loop too."""

_SLOW_S: Final = 5.0
"""An attempt that takes longer is told as back-pressure, though it may succeed yet."""

_LOOK_FOR_IDLE_S: Final = 3600
"""Time between two looks at all states, at most."""


class StampedRecord(Record, Protocol):
    """A consumed record with its broker time."""

    timestamp: float
    """Seconds since the epoch (`LogAppendTime`)."""


class States(Protocol):
    """Where the states of profiles are kept, by the record key."""

    def fetch(self, key: bytes) -> bytes | None:
        """The encoded state of a profile; None where there is none yet."""

    def keep(self, partition: int, key: bytes, value: bytes, at_s: float) -> None:
        """Keep the encoded state of a profile of a partition, at this broker time."""

    def kept_last_s(self, key: bytes) -> float:
        """Broker time, in seconds, at which a profile's state was kept last; 0 without one."""

    def idle_since(self, at_s: float) -> Sequence[tuple[int, bytes]]:
        """Partition and key of each state that was kept last before this broker time."""

    def drop(self, key: bytes) -> None:
        """Let go of a profile's state."""


class Delivers(Protocol):
    """The outbox, as far as the pipeline knows it."""

    async def deliver(self, records: Sequence[Outgoing]) -> None:
        """Write records; return when the broker has them all."""


class Infers(Protocol):
    """The inference client, as far as the pipeline knows it."""

    async def infer(self, batch: WindowBatch) -> Intents:
        """The intents of every profile of the batch."""

    async def forget(self, profile_hash: NDArray[np.int64]) -> None:
        """Drop whatever is kept of profiles, `[B]` hashes of their ids."""


class Writes(Protocol):
    """The online store's writer, as far as the pipeline knows it."""

    async def write(self, rows: Sequence[IntentRow]) -> int:
        """Write rows; return how many were refused as stale."""

    async def erase(self, erasures: Mapping[str, Erasure]) -> None:
        """Empty the features of profiles."""


@dataclass(slots=True)
class Touched:
    """A profile that a batch touched, with its newest state."""

    profile_id: str
    partition: int
    state: ProfileState

    is_announced: bool = False
    """Whether the same row, of the version that is live, was announced before."""


@dataclass(slots=True)
class MicroBatch:
    """What became of a micro-batch's records: the profiles touched, and what was turned away.

    Of the touched profiles, once all records are taken in, `scored` are those that there is
    something to say of. `emptied` are those that the batch has an erasure of, and those of which
    nothing is left: what is online of them goes before anything new is published.
    """

    consumed_at: float
    newest_s: float
    """Broker time, in seconds, of the newest record."""

    touched: dict[bytes, Touched] = field(default_factory=dict)
    requested: dict[bytes, Touched] = field(default_factory=dict)
    """Profiles that are to be published as they are; their states are not kept anew."""

    scored: dict[bytes, Touched] = field(default_factory=dict)
    emptied: dict[str, Erasure] = field(default_factory=dict)
    turned_away: list[Outgoing] = field(default_factory=list)
    broker_times: list[float] = field(default_factory=list)
    """Broker time, in seconds, of each event that touched a profile."""

    erased: dict[str, int] = field(default_factory=dict)
    """Of profiles that the batch has an erasure of, the time of the newest event that it took."""

    inferred_at: float = 0.0

    @property
    def profiles(self) -> list[tuple[str, ProfileState]]:
        """Ids and states of the profiles to be scored, each once."""
        return [(one.profile_id, one.state) for one in self.scored.values()]


class Pipeline:
    """Takes micro-batches through all steps, retrying what a dependency fails.

    Args:
        settings: the worker's settings.
        catalogue: names and durations of titles.
        states: the profiles' states.
        outbox: where changelog, dead letters, late events and features go.
        inference: the model server's client.
        store: the online store's writer.
        gives_up: asked before each retry; True ends it with `ShuttingDownError`, unacknowledged.
        released_at_s: since when the model version that is live has been.
        topology: where states are; None where they are wherever their events come by.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        *,
        states: States,
        outbox: Delivers,
        inference: Infers,
        store: Writes,
        gives_up: Callable[[], bool],
        released_at_s: Callable[[], float] = lambda: 0.0,
        topology: Topology | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._rules = Rules(window_length=settings.window_length, duration_ms=catalogue.duration_ms)
        self._states = states
        self._outbox = outbox
        self._inference = inference
        self._store = store
        self._gives_up = gives_up
        self._released_at_s = released_at_s
        self._topology = topology
        self._place = topology.place() if topology else lambda _, found: found
        self._clock = clock
        self._forgetting = asyncio.Lock()
        self._republishing: set[asyncio.Event] = set()
        self._looked_for_idle_at_s = 0.0
        self._owed: list[Outgoing] = []
        self._plain_topic = {settings.topic(name): name for name in topics.CONSUMED_TOPICS}
        self._retried: Counter[str] = Counter()
        for topic, reason in product(topics.CONSUMED_TOPICS, Reason):
            # Prometheus can't tell the first of a kind from one that was always there.
            metrics.DEAD_LETTERS.labels(topic, reason.value)

    @property
    def waits_for(self) -> str | None:
        """A dependency that is down and retried right now, if any."""
        return next(iter(+self._retried), None)

    async def begin(self, records: Sequence[StampedRecord]) -> MicroBatch:
        """Take records into the states and save these; one batch after the other.

        The next batch may be begun while this one is asked and finished.

        Raises:
            ShuttingDownError: when a dependency is down and `gives_up` says to stop waiting.
                Nothing may be acknowledged then.
            PartitionsChangedError: when a record is in a partition that there wasn't before.
        """
        if self._topology:
            there = max(record.partition for record in records) + 1
            self._topology.allows(max(there, self._topology.partitions))
        metrics.BATCH_EVENTS.observe(len(records))
        batch = await self.take_in(records)
        await self.save(batch)
        await self.expire(batch.newest_s)
        return batch

    async def ask(self, batch: MicroBatch) -> Intents | None:
        """Have the model forget what is erased, and ask it; one batch after the other.

        Returns:
            The intents of every profile to be scored; None where there is none.

        Raises:
            ShuttingDownError: as `begin`.
        """
        await self.forget(batch)
        intents = await self.infer(batch) if batch.scored else None
        batch.inferred_at = self._clock()
        return intents

    async def finish(self, batch: MicroBatch, intents: Intents | None) -> None:
        """Empty what is erased, and publish what was asked; one batch after the other.

        When this returns the batch's records may be acknowledged.

        Raises:
            ShuttingDownError: as `begin`.
        """
        await self.erase(batch)
        if intents is not None:
            rows = self.rows(batch, intents)
            await self.publish(rows)
            _observe_freshness(batch, self._clock())
            await self.announce(batch, rows)

    async def republish(self, profiles: Sequence[Kept]) -> None:
        """Publish again what the states of profiles say, beside the batches and beside others.

        Raises:
            ShuttingDownError: as `begin`.
        """
        ended = asyncio.Event()
        # What an erasure has the model and the store forget must not come back by this, so each
        # waits for the other's end; and whoever was erased by now is so in the state.
        async with self._forgetting:
            self._republishing.add(ended)
        try:
            batch = MicroBatch(consumed_at=self._clock(), newest_s=0.0)
            for profile in profiles:
                self._request(profile.key.decode(), profile.partition, batch)
            self._settle(batch)
            intents = await self.infer(batch, kept=False) if batch.scored else None
            if batch.emptied:
                await self._empty(batch.emptied)
            if intents is not None:
                rows = self.rows(batch, intents)
                await self.publish(rows)
                await self.announce(batch, rows)
        finally:
            self._republishing.remove(ended)
            ended.set()

    @asynccontextmanager
    async def _nothing_republished(self) -> AsyncIterator[None]:
        async with self._forgetting:
            for ended in tuple(self._republishing):
                await ended.wait()
            yield

    async def take_in(self, records: Sequence[StampedRecord]) -> MicroBatch:
        """Decode records and join them into the states, which are kept at once, all together."""
        newest_s = max(record.timestamp for record in records)
        batch = MicroBatch(consumed_at=self._clock(), newest_s=newest_s)
        outcomes: Counter[tuple[str, str]] = Counter()
        for number, record in enumerate(records):
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            topic = self._plain_topic[record.topic]
            outcomes[topic, self._take_in_one(topic, record, batch)] += 1
        for (topic, outcome), count in outcomes.items():
            metrics.EVENTS.labels(topic, outcome).inc(count)
        produced_consumed = metrics.FRESHNESS.labels("produced_consumed")
        for broker_time in batch.broker_times:
            produced_consumed.observe(max(batch.consumed_at - broker_time, 0.0))
        for key, touched in batch.touched.items():
            self._states.keep(touched.partition, key, codec.encode(touched.state), newest_s)
        self._settle(batch)
        return batch

    @staticmethod
    def _settle(batch: MicroBatch) -> None:
        """Tell the profiles of which there is something to say from those to be emptied."""
        for key, one in (batch.requested | batch.touched).items():
            if len(one.state.window):
                batch.scored[key] = one
            if one.profile_id in batch.erased or key not in batch.scored:
                newest_ms = batch.erased.get(one.profile_id, 0)
                batch.emptied[one.profile_id] = Erasure(one.state.erased_at_ms, newest_ms)

    def _take_in_one(self, topic: str, record: StampedRecord, batch: MicroBatch) -> str:
        broker_ms = broker_time_ms(record, round(record.timestamp * 1000))
        try:
            check_readable(record.value, record.headers)
            if topic == topics.PROFILE_ERASURES:
                return self._take_in_erasure(record, broker_ms, batch).value
            if topic == topics.PROFILE_REPUBLICATIONS:
                return self._request(erased_profile(record.key), record.partition, batch).value
            return self._take_in_event(topic, record, broker_ms, batch).value
        except BadRecordError as error:
            batch.turned_away.append(dead_letter(topic, record, broker_ms, error))
            metrics.DEAD_LETTERS.labels(topic, error.reason.value).inc()
            return "dead_letter"

    def _take_in_erasure(self, record: StampedRecord, broker_ms: int, batch: MicroBatch) -> Outcome:
        profile_id = erased_profile(record.key)
        if self._forward(topics.PROFILE_ERASURES, profile_id, record, broker_ms, batch):
            return Outcome.FORWARDED
        touched = self._touch(profile_id, record, batch)
        before, touched.state = touched.state, touched.state.erased(broker_ms)
        batch.erased[profile_id] = max(before.last_at_ms, batch.erased.get(profile_id, 0))
        return Outcome.UNCHANGED if touched.state is before else Outcome.APPLIED

    def _take_in_event(
        self, topic: str, record: StampedRecord, broker_ms: int, batch: MicroBatch
    ) -> Outcome:
        settings = self._settings
        event = decode(
            topic,
            record.key,
            record.value,
            broker_time_ms=broker_ms,
            headers=record.headers,
            max_ahead_s=settings.max_ahead_s,
            max_bytes=settings.max_event_bytes,
        )
        if self._forward(topic, event.profile_id, record, broker_ms, batch):
            return Outcome.FORWARDED
        if event.occurred_at_ms < broker_ms - settings.allowed_lateness_s * 1000:
            if event.occurred_at_ms <= self._state(event.profile_id.encode(), batch).erased_at_ms:
                return Outcome.ERASED
            batch.turned_away.append(late_event(record, broker_ms, "behind_broker"))
            return Outcome.LATE
        if not carries_state(event):
            return Outcome.STATELESS
        # An unchanged profile is touched too: its last publication may have been cut short.
        state = self._touch(event.profile_id, record, batch).state
        batch.broker_times.append(broker_ms / 1000)
        if min(event.occurred_at_ms, broker_ms) <= state.erased_at_ms:
            return Outcome.ERASED
        # Where it stands in the log that was read, whoever wrote it there and when it happened.
        place = LogPosition(round(record.timestamp * 1000), record.partition, record.offset)
        outcome = state.apply(event, self._rules, place)
        if outcome is Outcome.LATE:
            batch.turned_away.append(late_event(record, broker_ms, "before_window"))
        return outcome

    def _request(self, profile_id: str, partition: int, batch: MicroBatch) -> Outcome:
        key = profile_id.encode()
        if self._states.fetch(key) is None:
            return Outcome.STATELESS
        is_announced = self._states.kept_last_s(key) >= self._released_at_s()
        state = self._state(key, batch)
        batch.requested[key] = Touched(profile_id, partition, state, is_announced)
        return Outcome.UNCHANGED

    def _forward(
        self, topic: str, profile_id: str, record: StampedRecord, broker_ms: int, batch: MicroBatch
    ) -> bool:
        """Turn away a record whose profile's state is elsewhere, to there."""
        place = self._place(profile_id.encode(), record.partition)
        if place == record.partition:
            return False
        batch.turned_away.append(forwarded(topic, record, broker_ms, place))
        return True

    def _touch(self, profile_id: str, record: StampedRecord, batch: MicroBatch) -> Touched:
        key = profile_id.encode()
        touched = batch.touched.get(key)
        if touched is None:
            state = self._state(key, batch)
            touched = batch.touched[key] = Touched(profile_id, record.partition, state)
        return touched

    def _state(self, key: bytes, batch: MicroBatch) -> ProfileState:
        if key in batch.touched:
            return batch.touched[key].state
        data = self._states.fetch(key)
        return codec.decode(data) if data else ProfileState()

    async def save(self, batch: MicroBatch) -> None:
        """Deliver what was turned away, then the changelog of the touched states.

        What couldn't be delivered of it is owed until the next batch: its records may
        be read again, and the states, which know that they were read, won't call them late twice.
        """
        self._owed += batch.turned_away
        if self._owed:
            await self._insist("kafka", lambda: self._outbox.deliver(self._owed))
            self._owed = []
        changelog = [
            Outgoing(topics.SESSIONS_CHANGELOG, touched.partition, key, self._states.fetch(key))
            for key, touched in batch.touched.items()
        ]
        await self._insist("kafka", lambda: self._outbox.deliver(changelog))

    async def forget(self, batch: MicroBatch) -> None:
        """Make the model forget what the batch has erased."""
        if batch.erased:
            hashes = np.array([hash64(profile_id) for profile_id in batch.erased], np.int64)
            async with self._nothing_republished():
                await self._insist("triton", lambda: self._inference.forget(hashes))

    async def erase(self, batch: MicroBatch) -> None:
        """Make the online store forget what the batch has erased, and tell the features' readers.

        A tombstone on `intent-features`, behind the last of a profile's rows from before, is what
        the sink goes by.
        """
        if batch.emptied:
            async with self._nothing_republished():
                await self._empty(batch.emptied)
        tombstones = [
            Outgoing(
                topics.INTENT_FEATURES,
                batch.touched[key].partition,
                key,
                None,
                batch.emptied[profile_id].to_headers(),
            )
            for profile_id, key in ((one, one.encode()) for one in batch.erased)
        ]
        if tombstones:
            await self._insist("kafka", lambda: self._outbox.deliver(tombstones))

    async def _empty(self, emptied: Mapping[str, Erasure]) -> None:
        await self._insist("online_store", lambda: self._store.erase(emptied))

    async def infer(self, batch: MicroBatch, *, kept: bool = True) -> Intents:
        """The intents of every profile to be scored; `kept` when more of them is expected soon."""
        metrics.BATCH_PROFILES.observe(len(batch.scored))
        windows = window_batch(batch.profiles, self._rules)
        if not kept:
            windows = windows.unkept()
        return await self._insist("triton", lambda: self._inference.infer(windows))

    def rows(self, batch: MicroBatch, intents: Intents) -> list[IntentRow]:
        """The rows to publish, one for each profile scored."""
        return intent_rows(
            batch.profiles,
            intents,
            self._catalogue,
            session_gap_s=self._settings.session_gap_s,
            now_ms=round(self._clock() * 1000),
        )

    async def publish(self, rows: Sequence[IntentRow]) -> None:
        """Write the rows to the online store."""
        stale = await self._insist("online_store", lambda: self._store.write(rows))
        metrics.PUBLISHED.inc(len(rows) - stale)
        metrics.STALE.inc(stale)

    async def announce(self, batch: MicroBatch, rows: Sequence[IntentRow]) -> None:
        """Write the rows to the topic `intent-features`."""
        records = [
            Outgoing(topics.INTENT_FEATURES, touched.partition, key, row.to_json())
            for (key, touched), row in zip(batch.scored.items(), rows, strict=True)
            if not touched.is_announced
        ]
        if records:
            await self._insist("kafka", lambda: self._outbox.deliver(records))

    async def expire(self, now_s: float) -> None:
        """Let go of profiles that have been idle for too long at this broker time.

        Before another batch is begun, and gone from the changelog before they are gone here: a
        profile that comes back starts anew behind its tombstone.
        """
        idle_s = self._settings.idle_profile_s
        # A topic that keeps its producers' timestamps may hold one of any time.
        now_s = min(now_s, self._clock() + self._settings.max_ahead_s)
        if not idle_s or now_s < self._looked_for_idle_at_s + min(idle_s, _LOOK_FOR_IDLE_S):
            return
        self._looked_for_idle_at_s = now_s
        idle = self._states.idle_since(now_s - idle_s)
        tombstones = [
            Outgoing(topics.SESSIONS_CHANGELOG, partition, key, None) for partition, key in idle
        ]
        if tombstones:
            await self._insist("kafka", lambda: self._outbox.deliver(tombstones))
        for _, key in idle:
            self._states.drop(key)
        metrics.EXPIRED.inc(len(idle))

    async def _insist(self, dependency: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
        waiting = False

        def wait() -> None:
            nonlocal waiting
            self._retried[dependency] += not waiting
            waiting = True
            metrics.BACK_PRESSURE.set(1)

        def hold(state: RetryCallState) -> None:
            wait()
            metrics.RETRIES.labels(dependency).inc()
            _log.warning("Attempt %d: %s", state.attempt_number, _error_of(state))

        async def watched() -> _T:
            # A producer without a broker neither fails nor returns.
            task = asyncio.ensure_future(attempt())
            try:
                while not (await asyncio.wait([task], timeout=_SLOW_S))[0]:
                    if not waiting:
                        _log.warning("No answer of %s for %g s", dependency, _SLOW_S)
                    wait()
                    if self._gives_up():
                        raise ShuttingDownError(f"gave up on {dependency}: no answer")
                return task.result()
            finally:
                task.cancel()

        def give_up(state: RetryCallState) -> _T:
            raise ShuttingDownError(f"gave up on {dependency}: {_error_of(state)}")

        retries = AsyncRetrying(
            retry=retry_if_exception_type(UnavailableError),
            wait=wait_random_exponential(multiplier=_FIRST_RETRY_S, max=_LONGEST_RETRY_S),
            stop=lambda _: self._gives_up(),
            before_sleep=hold,
            retry_error_callback=give_up,
        )
        try:
            return await retries(watched)
        finally:
            if waiting:
                self._retried[dependency] -= 1
                metrics.BACK_PRESSURE.set(self.waits_for is not None)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _observe_freshness(batch: MicroBatch, readable_at: float) -> None:
    legs = metrics.FRESHNESS.labels
    legs("consumed_inferred").observe(batch.inferred_at - batch.consumed_at)
    legs("inferred_readable").observe(readable_at - batch.inferred_at)
    whole = legs("produced_readable")
    for broker_time in batch.broker_times:
        whole.observe(max(readable_at - broker_time, 0.0))
