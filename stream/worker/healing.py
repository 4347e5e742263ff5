"""Publishes again what the online store has lost.

What was published can be gone without an error (see `features.online.inspection`), and features of
a profile that does nothing more would be gone for good. The worker has the states of all profiles
of its partitions, so it can tell which rows must be there, and score and publish those that are
not.

Looking through all profiles is cheap, two fields of a row each; it is done when partitions come to
this worker, when their store is doubted, and else once in `store_sweep_s`. To score a profile costs
more than an event does, whose profile the model has in its cache: its whole window is computed. So
windows of like length are scored together, without the cache, which is left to those who come;
those that were active last go first, and each portion is followed by a rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from time import monotonic, time
from typing import Final, NamedTuple, Protocol, TypeVar

from mode import Service

from features.online.inspection import FencePosition
from stream import metrics
from stream.domain import codec
from stream.domain.profile_state import ProfileState
from stream.exceptions import BadStateError, ShuttingDownError, StoreError
from stream.settings import Settings
from stream.worker.states import Kept, States

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_BEAT_S: Final = 1.0
"""Time between two looks at the sentinels: what a failover loses is told by the last one lost."""

_LOOKED_AT: Final = 64
"""Rows that are looked at in one round trip; their states are decoded at a stretch, some 3 ms."""

_GATHERED: Final = 256
"""Lost rows from which portions are made; the more, the less their windows differ in length."""

_PUBLISHED: Final = 64
"""Profiles of a portion; the model answers no live event before it has answered for all of them."""

_AT_ONCE: Final = 2
"""Portions on their way at once: while one is published, another is scored."""

_REST: Final = 0.1
"""How long nothing is published after a portion, as a share of the time that it took."""

_SETTLED_S: Final = 10.0
"""A state that is younger may still be on its way to the store."""


LOSSES: Final = ("missing", "older")
"""What a store may have instead of a profile's row."""


class Inspects(Protocol):
    """The online store, as far as the healer knows it."""

    async def places(self, profile_ids: Sequence[str]) -> list[FencePosition | None]:
        """Where the profiles' rows stand."""

    async def servers(self) -> frozenset[str] | None:
        """What the servers call themselves; None where they don't tell."""

    async def beats(self, partitions: Collection[int]) -> dict[int, int | None]:
        """What stands in the partitions' sentinel rows."""

    async def titles(self) -> str | None:
        """The model version whose title vectors are there."""

    async def beat(self, beats: Mapping[int, int]) -> None:
        """Write the partitions' sentinel rows."""


class Republishes(Protocol):
    """The pipeline, as far as the healer knows it."""

    async def republish(self, profiles: Sequence[Kept]) -> None:
        """Publish what the states of these profiles say."""


class Doubts:
    """Remembers what the store was seen to hold, and says when it can't hold all any more."""

    def __init__(self) -> None:
        self._servers: frozenset[str] | None = None
        self._beats: dict[int, int] = {}

    def observe(
        self, found: Mapping[int, int | None], servers: frozenset[str] | None
    ) -> dict[int, str]:
        """Take in what stands in the sentinels of the partitions owned, and who the servers are.

        Returns:
            By partition why its rows are doubted: `assigned` (it has just come to this worker),
            `sentinel` (its sentinel is gone or has gone back) or `server` (another server answers).
        """
        is_other = self._servers is not None and servers is not None and servers != self._servers
        self._servers = servers or self._servers
        doubts = {}
        for partition, beat in found.items():
            written = self._beats.get(partition)
            if written is None:
                doubts[partition] = "assigned"
            elif beat is None or beat < written:
                doubts[partition] = "sentinel"
            elif is_other:
                doubts[partition] = "server"
        self._beats = {at: beat for at, beat in self._beats.items() if at in found}
        return doubts

    def written(self, beats: Mapping[int, int]) -> None:
        """Remember what was written into sentinels."""
        self._beats |= beats


def loss(state: ProfileState, place: FencePosition | None) -> str | None:
    """What a store has lost of a profile: the row is `missing` or `older`, or nothing (None).

    Of an erased profile it must hold that it was erased, or what is older could come back.
    """
    if len(state.window):
        wanted = FencePosition(state.last_at_ms, state.sequence_no)
    elif state.erased_at_ms:
        wanted = FencePosition(state.erased_at_ms, 0)
    else:
        return None
    if place is None:
        return "missing"
    return "older" if place < wanted else None


class _LostRow(NamedTuple):
    """A profile of which the store has lost something."""

    kept: Kept
    state: bytes
    length: int
    """Interactions in the window."""

    loss: str


class Healer(Service):
    """Watches the online store for losses, and has what is lost published again.

    Args:
        settings: how often all profiles are looked through, and how long rows live.
        states: the profiles' states.
        store: the online store.
        pipeline: publishes.
        live: tells the model version whose title vectors must be there; empty for none.
        owned: the partitions of this worker; none while it is dealt others, reads states back, or
            holds its batch because a dependency is down.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        states: States,
        store: Inspects,
        pipeline: Republishes,
        live: Callable[[], str],
        owned: Callable[[], Set[int]],
        clock: Callable[[], float] = time,
    ) -> None:
        self._sweep_s = settings.store_sweep_s
        self._ttl_s = settings.feature_ttl_s
        self._states = states
        self._store = store
        self._pipeline = pipeline
        self._live = live
        self._owned = owned
        self._clock = clock
        self._doubts = Doubts()
        self._doubted: dict[int, str] = {}
        self._losses = 0
        self._answers = True
        self._has_titles = True
        for lost in LOSSES:
            # Prometheus can't tell the first of a kind from one that was always there.
            metrics.HEALED.labels(lost)
        super().__init__()

    @property
    def store_answers(self) -> bool:
        """Whether the store did when it was last asked."""
        return self._answers

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            await self.sleep(_BEAT_S)
            try:
                await self.look()
            except StoreError as error:
                if self._answers:
                    _log.warning("The online store is not watched now: %s", error)
                self._answers = False
            else:
                if not self._answers:
                    _log.info("The online store answers again")
                self._answers = True

    async def look(self) -> None:
        """Look at the sentinels and the servers once, and write the sentinels anew.

        Raises:
            StoreUnavailableError: when the store can't be asked now.
            StoreRefusedError: when it answers with an error that needs an operator.
        """
        owned = sorted(self._owned())
        servers = await self._store.servers()
        self._tell_of_titles(await self._store.titles(), self._live())
        if not owned:
            return
        doubts = self._doubts.observe(await self._store.beats(owned), servers)
        self._doubted |= doubts
        self._losses += bool(doubts)
        beats = dict.fromkeys(owned, round(self._clock() * 1000))
        await self._store.beat(beats)
        self._doubts.written(beats)

    def _tell_of_titles(self, served: str | None, live: str) -> None:
        """Say when the vectors of titles are lost: they are not the worker's to make."""
        has_titles = not live or served == live
        if has_titles != self._has_titles:
            told = _log.info if has_titles else _log.warning
            told(
                "The online store has title vectors of %s, and version %s is live%s",
                f"version {served}" if served else "no version",
                live,
                "" if has_titles else "; `intentstream titles` puts them there",
            )
        self._has_titles = has_titles
        metrics.TITLES_LOST.set(not has_titles)

    @Service.task
    async def _heal(self) -> None:
        swept_at = monotonic()
        while not self.should_stop:
            await self.sleep(_BEAT_S)
            try:
                if self._doubted:
                    await self._make_whole()
                    swept_at = monotonic()
                elif self._sweep_s and monotonic() - swept_at > self._sweep_s:
                    await self._sweep()
                    swept_at = monotonic()
            except ShuttingDownError as error:
                _log.info("Publishing again is given up: %s", error)
            except StoreError:
                pass  # `_watch` tells it; the partitions stay doubted

    async def _make_whole(self) -> None:
        """Look through all profiles of the doubted partitions, and publish what is lost."""
        doubted, losses = dict(self._doubted), self._losses
        for cause in set(doubted.values()):
            metrics.STORE_CHECKS.labels(cause).inc()
        profiles = [kept for kept in self._states.newest_first() if kept.partition in doubted]
        causes = ", ".join(sorted(set(doubted.values())))
        _log.info(
            "Whether the online store has all rows is looked at: %d profiles of partitions %s (%s)",
            len(profiles),
            sorted(doubted),
            causes,
        )
        began = monotonic()
        healed = await self._look_through(profiles)
        if self._losses == losses:
            self._doubted = {}
        told = _log.warning if healed else _log.info
        told(
            "%d profiles looked through in %.0f s (%s); published again: %s",
            len(profiles),
            monotonic() - began,
            causes,
            dict(healed) or "none",
        )

    async def _sweep(self) -> None:
        """Look through all profiles, so slowly that it takes `store_sweep_s`."""
        metrics.STORE_CHECKS.labels("sweep").inc()
        healed = await self._look_through(self._states.newest_first(), self._sweep_s)
        if healed:
            _log.warning(
                "Rows were lost by an online store that went on: %s are published again. Does it "
                "evict (maxmemory-policy), or does somebody delete keys?",
                dict(healed),
            )

    async def _look_through(self, profiles: Sequence[Kept], within_s: float = 0.0) -> Counter[str]:
        """Publish again what is lost of these profiles; a new doubt ends it early.

        Args:
            profiles: to be looked at, in this order.
            within_s: how long to take at least.

        Returns:
            How many were published, by their loss.
        """
        healed: Counter[str] = Counter()
        lost: list[_LostRow] = []
        young: list[Kept] = []
        losses, left = self._losses, len(profiles)
        try:
            for some in _parts(profiles, _LOOKED_AT):
                metrics.STORE_CHECK_LEFT.set(left)
                left -= len(some)
                while not self._owned() and not self.should_stop:
                    await self.sleep(_BEAT_S)
                if self.should_stop or self._losses != losses:
                    return healed
                began = monotonic()
                old = [kept for kept in some if not self._is_young(kept)]
                young += [kept for kept in some if self._is_young(kept)]
                found = await self._lost(old)
                lost += found
                if within_s or not found:  # else publishing them has its own rests
                    await self.sleep(
                        max(monotonic() - began, within_s * len(some) / max(len(profiles), 1))
                    )
                if within_s or len(lost) >= _GATHERED:
                    healed += await self._publish(lost)
                    lost = []
            healed += await self._publish(lost)
            # By now these are in the store, unless it lost them too; what changed since is
            # published by what changed it.
            for some in _parts(young, _LOOKED_AT):
                seen = await self._lost(some)
                if seen:
                    await self.sleep(_SETTLED_S)
                    still = {one.kept.key for one in await self._lost([one.kept for one in seen])}
                    healed += await self._publish(
                        [
                            one
                            for one in seen
                            if one.kept.key in still
                            and self._states.fetch(one.kept.key) == one.state
                        ]
                    )
            return healed
        finally:
            metrics.STORE_CHECK_LEFT.set(0)

    def _is_young(self, kept: Kept) -> bool:
        return kept.at_s > self._clock() - _SETTLED_S

    async def _lost(self, profiles: Sequence[Kept]) -> list[_LostRow]:
        """Which of these profiles, of those still owned, the store has lost something of."""
        owned = self._owned()
        known = [
            (kept, data, state)
            for kept in profiles
            if kept.partition in owned
            and (data := self._states.fetch(kept.key)) is not None
            and (state := _decoded(kept.key, data)) is not None
        ]
        places = await self._store.places([kept.key.decode() for kept, _, _ in known])
        expired_before_s = self._clock() - self._ttl_s if self._ttl_s else 0.0
        return [
            _LostRow(kept, data, len(state.window), lost)
            for (kept, data, state), place in zip(known, places, strict=True)
            if (lost := loss(state, place)) and kept.at_s > expired_before_s
        ]

    async def _publish(self, found: Sequence[_LostRow]) -> Counter[str]:
        healed: Counter[str] = Counter()
        portions = _parts(sorted(found, key=lambda one: one.length), _PUBLISHED)

        async def publish() -> None:
            for some in portions:
                began = monotonic()
                await self._pipeline.republish([one.kept for one in some])
                told = Counter(one.loss for one in some)
                for lost, count in told.items():
                    metrics.HEALED.labels(lost).inc(count)
                healed.update(told)
                await self.sleep(_REST * (monotonic() - began))

        ended = await asyncio.gather(*(publish() for _ in range(_AT_ONCE)), return_exceptions=True)
        for error in filter(None, ended):
            raise error
        return healed


def _decoded(key: bytes, data: bytes) -> ProfileState | None:
    try:
        return codec.decode(data)
    except BadStateError as error:
        _log.error("The state of %r can't be read, its row is not looked at: %s", key, error)
        return None


def _parts(sequence: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(sequence), size):
        yield sequence[start : start + size]
