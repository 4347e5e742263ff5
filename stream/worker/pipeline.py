"""One micro-batch, from raw records to published features: decode → session → infer → publish.

A profile that is to be erased goes the same way: its state is emptied, the model's cache and the
online store are made to forget it, and what happened before is not applied again.

The order of effects is what keeps everything: the dead letters and the late events are delivered
before the state's changelog, which says that they were read; that is delivered, while the model is
asked, before features are published, and only after the publication may the caller acknowledge. The
changelogs of batches are delivered one after the other. A crash anywhere between
leaves unacknowledged records; their redelivery changes nothing in the state but touches the same
profiles, and every profile touched is scored and published again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from time import time
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from stream import metrics
from stream.domain import topics
from stream.domain.catalogue import Catalogue
from stream.domain.feature_row import Erasure, IntentRow
from stream.domain.intent_rows import IntentRows
from stream.domain.labels import hash64
from stream.domain.prediction import Intents
from stream.domain.row_building import intent_rows
from stream.domain.rules import Rules
from stream.domain.version_labels import BUILT_IN, VersionLabels
from stream.domain.window import windows_of
from stream.inference.backend import InferenceBackend
from stream.kafka.outbox import Outgoing, RecordProducer
from stream.kafka.topology import Topology
from stream.settings import Settings
from stream.worker.decoding import Decoder
from stream.worker.joining import Joiner
from stream.worker.micro_batch import MicroBatch, StampedRecord
from stream.worker.retrying import Retries
from stream.worker.states import Kept, States

_LOOK_FOR_IDLE_S: Final = 3600
"""Time between two looks at all states, at most."""


class Writes(Protocol):
    """The online store's writer, as far as the pipeline knows it."""

    async def write(self, rows: Sequence[IntentRow]) -> int | None:
        """Write rows; return how many were refused as stale, None where the store can't tell."""

    async def erase(self, erasures: Mapping[str, Erasure]) -> None:
        """Empty the features of profiles."""


class Pipeline:
    """Takes micro-batches through all steps, retrying what a dependency fails.

    `decode` and `session` begin a batch; the next one may be begun while this one is inferred and
    published. Each step takes one batch after the other. Every step raises `ShuttingDownError` when
    a dependency is down and `gives_up` says to stop waiting; nothing may be acknowledged then.

    Args:
        settings: the worker's settings.
        catalogue: names and durations of titles.
        states: the profiles' states.
        outbox: where changelog, dead letters, late events and features go.
        inference: answers for windows.
        store: the online store's writer.
        gives_up: asked before each retry; True ends it.
        released_at_s: since when the model version that is live has been.
        labels_of: the labels of a model version.
        topology: where states are; None where they are wherever their events come by.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        *,
        states: States,
        outbox: RecordProducer,
        inference: InferenceBackend,
        store: Writes,
        gives_up: Callable[[], bool],
        released_at_s: Callable[[], float] = lambda: 0.0,
        labels_of: Callable[[str], VersionLabels] = lambda _: BUILT_IN,
        topology: Topology | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._rules = Rules(window_length=settings.window_length, durations=catalogue.durations)
        self._states = states
        self._outbox = outbox
        self._inference = inference
        self._store = store
        self._released_at_s = released_at_s
        self._labels_of = labels_of
        self._topology = topology
        self._clock = clock
        self._decoder = Decoder(settings)
        self._joiner = Joiner(settings, self._rules, states, topology)
        self._retries = Retries(gives_up)
        self._forgetting = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._republishing: set[asyncio.Event] = set()
        self._looked_for_idle_at_s = 0.0
        self._owed: list[Outgoing] = []

    @property
    def waits_for(self) -> str | None:
        """A dependency that is down and retried right now, if any."""
        return self._retries.waits_for

    async def decode(self, records: Sequence[StampedRecord]) -> MicroBatch:
        """A batch of what records say, and of the dead letters among them.

        Raises:
            PartitionsChangedError: when a record is in a partition that there wasn't before.
        """
        if self._topology:
            there = max(record.partition for record in records) + 1
            self._topology.allows(max(there, self._topology.partitions))
        metrics.BATCH_EVENTS.observe(len(records))
        newest_s = max(record.timestamp for record in records)
        batch = MicroBatch(consumed_at=self._clock(), newest_s=newest_s)
        await self._decoder.decode(records, batch)
        return batch

    async def session(self, batch: MicroBatch) -> None:
        """Join what was decoded into the profiles' states, and begin to save these.

        `publish` waits until they are saved; of a batch that isn't published `leave` does.
        """
        await self.join(batch)
        changelog = [
            Outgoing(topics.SESSIONS_CHANGELOG, touched.partition, key, self._states.fetch(key))
            for key, touched in batch.touched.items()
        ]
        batch.saved = asyncio.create_task(self.save(batch.rejected, changelog))
        await asyncio.sleep(0)  # so that the broker has work before windows are cut
        await self.expire(batch)

    async def infer(self, batch: MicroBatch) -> Intents | None:
        """Have the model forget what is erased, and ask it.

        Returns:
            The intents of every profile to be scored; None where there is none.
        """
        await self.forget(batch)
        intents = await self._ask(batch) if batch.scored else None
        if intents is not None:
            labels = self._labels_of(intents.model_version[0])
            metrics.UNKNOWN_LABELS.labels("device").inc(labels.unknown_devices(batch.devices))
        batch.inferred_at = self._clock()
        return intents

    async def publish(self, batch: MicroBatch, intents: Intents | None) -> IntentRows | None:
        """Empty what is erased in the online store, and write there what was inferred.

        Returns:
            What was written; None where there is nothing to say.
        """
        await batch.saved
        await self.erase(batch)
        if intents is None:
            return None
        rows = self._rows(batch, intents)
        await self.write(rows)
        _observe_freshness(batch, self._clock())
        return rows

    async def announce(self, batch: MicroBatch, rows: IntentRows | None) -> None:
        """Tell the features' readers what is erased and what was published.

        When this returns the batch's records may be acknowledged. A tombstone on `intent-features`,
        behind the last of a profile's rows from before, is what the sink goes by.
        """
        records = [
            Outgoing(
                topics.INTENT_FEATURES,
                batch.touched[key].partition,
                key,
                None,
                batch.emptied[profile_id].to_headers(),
            )
            for profile_id, key in ((one, one.encode()) for one in batch.erased)
        ]
        if rows is not None:
            records += _announcements(batch, rows)
        if records:
            await self._deliver(records)

    async def republish(self, profiles: Sequence[Kept]) -> None:
        """Publish again what the states of profiles say, beside the batches and beside others."""
        ended = asyncio.Event()
        # What an erasure has the model and the store forget must not come back by this, so each
        # waits for the other's end; and whoever was erased by now is so in the state.
        async with self._forgetting:
            self._republishing.add(ended)
        try:
            batch = MicroBatch(consumed_at=self._clock(), newest_s=0.0)
            released_at_s = self._released_at_s()
            self._joiner.request(profiles, batch, released_at_s=released_at_s)
            intents = await self._ask(batch, kept=False) if batch.scored else None
            if batch.emptied:
                await self._empty(batch.emptied)
            if intents is not None:
                rows = self._rows(batch, intents)
                await self.write(rows)
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

    async def join(self, batch: MicroBatch) -> None:
        """Apply what was decoded to the states, and cut the live sessions."""
        await self._joiner.join(batch, released_at_s=self._released_at_s())
        for (topic, outcome), count in batch.outcomes.items():
            metrics.EVENTS.labels(topic, outcome).inc(count)
        _observe("produced_consumed", batch.consumed_at - batch.broker_times)

    async def save(self, rejected: Sequence[Outgoing], changelog: Sequence[Outgoing]) -> None:
        """Deliver what was rejected, then the changelog of the touched states.

        What couldn't be delivered of the rejected is owed until the next batch: its records may be
        read again, and the states, which know that they were read, won't call them late twice.
        """
        async with self._saving:
            self._owed += rejected
            if self._owed:
                await self._deliver(self._owed)
                self._owed = []
            await self._deliver(changelog)

    async def leave(self, batch: MicroBatch) -> None:
        """Return when nothing of a batch is under way any more, however it ended."""
        await asyncio.gather(batch.saved, return_exceptions=True)

    async def expire(self, batch: MicroBatch) -> None:
        """Let go of profiles that have been idle for too long at the broker time of this batch.

        Before another batch is begun, behind all states that are on their way to the changelog, and
        gone from there before they are gone here: a profile that comes back starts anew behind its
        tombstone.
        """
        idle_s = self._settings.idle_profile_s
        # A topic that keeps its producers' timestamps may hold one of any time.
        now_s = min(batch.newest_s, self._clock() + self._settings.max_ahead_s)
        if not idle_s or now_s < self._looked_for_idle_at_s + min(idle_s, _LOOK_FOR_IDLE_S):
            return
        self._looked_for_idle_at_s = now_s
        idle = self._states.idle_since(now_s - idle_s)
        tombstones = [
            Outgoing(topics.SESSIONS_CHANGELOG, partition, key, None) for partition, key in idle
        ]
        if tombstones:
            await batch.saved
            await self._deliver(tombstones)
        for _, key in idle:
            self._states.drop(key)
        metrics.EXPIRED.inc(len(idle))

    async def forget(self, batch: MicroBatch) -> None:
        """Make the model forget what the batch has erased."""
        if batch.erased:
            hashes = np.array([hash64(profile_id) for profile_id in batch.erased], np.int64)
            async with self._nothing_republished():
                await self._retries.retry("triton", lambda: self._inference.forget(hashes))

    async def _ask(self, batch: MicroBatch, *, kept: bool = True) -> Intents:
        """The intents of every profile to be scored; `kept` when more of them is expected soon."""
        metrics.BATCH_PROFILES.observe(len(batch.scored))
        windows = windows_of(batch.profile_ids, batch.scored_states, self._rules)
        if not kept:
            windows = windows.unkept()
        return await self._retries.retry("triton", lambda: self._inference.infer(windows))

    async def erase(self, batch: MicroBatch) -> None:
        """Make the online store forget what the batch has erased."""
        if batch.emptied:
            async with self._nothing_republished():
                await self._empty(batch.emptied)

    async def _empty(self, emptied: Mapping[str, Erasure]) -> None:
        await self._retries.retry("online_store", lambda: self._store.erase(emptied))

    def _rows(self, batch: MicroBatch, intents: Intents) -> IntentRows:
        return intent_rows(
            batch.profile_ids,
            batch.scored_states,
            batch.sessions,
            intents,
            self._catalogue,
            self._labels_of(intents.model_version[0]),
            now_ms=round(self._clock() * 1000),
        )

    async def write(self, rows: IntentRows) -> None:
        """Write rows to the online store."""
        stale = await self._retries.retry("online_store", lambda: self._store.write(rows))
        metrics.PUBLISHED.inc(len(rows) - (stale or 0))
        if stale is not None:
            metrics.STALE.labels(self._settings.online_store).inc(stale)

    async def _deliver(self, records: Sequence[Outgoing]) -> None:
        await self._retries.retry("kafka", lambda: self._outbox.deliver(records))


def _announcements(batch: MicroBatch, rows: IntentRows) -> list[Outgoing]:
    return [
        Outgoing(topics.INTENT_FEATURES, touched.partition, key, value)
        for (key, touched), value in zip(batch.scored.items(), rows.to_json(), strict=True)
        if not touched.is_announced
    ]


def _observe_freshness(batch: MicroBatch, readable_at: float) -> None:
    _observe("consumed_inferred", np.array([batch.inferred_at - batch.consumed_at]))
    _observe("inferred_readable", np.array([readable_at - batch.inferred_at]))
    _observe("produced_readable", readable_at - batch.broker_times)


def _observe(leg: str, seconds: NDArray[np.float64]) -> None:
    # The broker's clock may be ahead of ours.
    metrics.FRESHNESS.observe(leg, np.maximum(seconds, 0.0))
