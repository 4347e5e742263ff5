"""The members that were active last: what was published of each, its state, how it changed.

Nothing here knows Kafka. Memory is bounded: of members, of what is kept of each, of who looks on.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from stream.domain.heads import HEADS

MOST_MEMBERS: Final = 2_000
MOMENTS: Final = 32
"""How many rows are remembered of a member, but for what they propose."""
MOST_MINUTES: Final = 24 * 60
_MOST_WAITED_FOR: Final = 256


class Moment(NamedTuple):
    """What one row said."""

    event_id: str
    event_at_ms: int
    published_at_ms: int
    sequence_no: int
    version: str
    labels_id: str
    cluster: int
    probs: array[float]
    """Of all heads, one after the other; of a head that the version doesn't predict, nothing."""


@dataclass(slots=True)
class Member:
    """One member."""

    row: bytes = b""
    """The newest row's JSON; empty where only the state was seen."""
    state: bytes = b""
    """The newest state as it is encoded; empty where it wasn't seen."""
    labels: dict[str, str] = field(default_factory=dict)
    """The likeliest of each head, by its name."""
    embedding: array[float] = field(default_factory=lambda: array("f"))
    moments: deque[Moment] = field(default_factory=lambda: deque(maxlen=MOMENTS))


class Watch:
    """Tells somebody who looks that there is news; what came meanwhile is one piece of news."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def tell(self) -> None:
        """There is news."""
        self._news.set()

    async def news(self, within_s: float) -> bool:
        """Wait for news; whether there is any."""
        try:
            async with asyncio.timeout(within_s):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True


class Answered(NamedTuple):
    """An event that came back as features."""

    event_id: str
    ms: float
    """From before it was sent until its row was read."""


class Members:
    """The members that were active last.

    Args:
        most: members at most; who was active longest ago makes room.
        clock: monotonic seconds.
    """

    def __init__(
        self, most: int = MOST_MEMBERS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.segments = Segments()
        self._most = most
        self._clock = clock
        self._members: OrderedDict[str, Member] = OrderedDict()
        self._watches: dict[str, set[Watch]] = {}
        self._of_all: set[Watch] = set()
        self._waited_for: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._answered: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._members)

    def get(self, profile_id: str) -> Member | None:
        """What is known of a member."""
        return self._members.get(profile_id)

    def active(self, most: int) -> list[tuple[str, Moment]]:
        """Who was active last, with the newest row of each, newest first."""
        found = []
        for profile_id in reversed(self._members):
            moments = self._members[profile_id].moments
            if moments:
                found.append((profile_id, moments[-1]))
                if len(found) == most:
                    break
        return found

    def take_row(self, key: bytes, value: bytes | None) -> None:
        """Take in a record of `intent-features`; without a value it is an erasure."""
        profile_id = key.decode(errors="replace")
        if value is None:
            self._members.pop(profile_id, None)
        else:
            try:
                moment, embedding, labels = _read(value)
            except (ValueError, LookupError, TypeError):
                return  # not ours
            member = self._member(profile_id)
            member.row, member.embedding, member.labels = value, embedding, labels
            if not member.moments or member.moments[-1] != moment:
                member.moments.append(moment)
            self.segments.take(profile_id, moment)
            self._answer(profile_id, moment.event_id)
        self._tell(profile_id)

    def take_state(self, key: bytes, value: bytes | None) -> None:
        """Take in a record of the changelog."""
        profile_id = key.decode(errors="replace")
        if value is None:
            if known := self._members.get(profile_id):
                known.state = b""
        else:
            self._member(profile_id).state = value
        for watch in self._watches.get(profile_id, ()):
            watch.tell()

    def wait_for(self, profile_id: str, event_id: str) -> None:
        """Measure from now on how long it takes until the features know of an event."""
        self._waited_for[event_id] = profile_id, self._clock()
        _shorten(self._waited_for, _MOST_WAITED_FOR)

    def answered(self, profile_id: str) -> Answered | None:
        """The event waited for that a member's features knew of last."""
        for event_id, (whose, ms) in reversed(self._answered.items()):
            if whose == profile_id:
                return Answered(event_id, ms)
        return None

    @contextmanager
    def watched(self, profile_id: str) -> Iterator[Watch]:
        """Hear of everything that is new of a member."""
        watch = Watch()
        self._watches.setdefault(profile_id, set()).add(watch)
        try:
            yield watch
        finally:
            left = self._watches[profile_id]
            left.discard(watch)
            if not left:
                del self._watches[profile_id]

    @contextmanager
    def all_watched(self) -> Iterator[Watch]:
        """Hear of every row."""
        watch = Watch()
        self._of_all.add(watch)
        try:
            yield watch
        finally:
            self._of_all.discard(watch)

    def _member(self, profile_id: str) -> Member:
        member = self._members.setdefault(profile_id, Member())
        self._members.move_to_end(profile_id)
        _shorten(self._members, self._most)
        return member

    def _answer(self, profile_id: str, event_id: str) -> None:
        if event_id in self._waited_for:
            whose, since = self._waited_for.pop(event_id)
            self._answered[event_id] = whose, (self._clock() - since) * 1000
            _shorten(self._answered, _MOST_WAITED_FOR)

    def _tell(self, profile_id: str) -> None:
        for watch in (*self._watches.get(profile_id, ()), *self._of_all):
            watch.tell()


class Segment(NamedTuple):
    """How many members were in a cluster in one minute, and how often they were published."""

    minute_ms: int
    version: str
    cluster: int
    members: int
    rows: int


class Segments:
    """Members by cluster and minute, since the console began to look, for a day at most."""

    def __init__(self) -> None:
        self._closed: deque[tuple[Segment, ...]] = deque(maxlen=MOST_MINUTES)
        self._minute_ms = 0
        self._where: dict[tuple[str, int], Counter[int]] = {}

    def take(self, profile_id: str, moment: Moment) -> None:
        """Count one row, in the minute that it was published in, or the one that is open."""
        minute_ms = moment.published_at_ms // 60_000 * 60_000
        if minute_ms > self._minute_ms:
            if self._where:
                self._closed.append(self._open())
            self._minute_ms, self._where = minute_ms, {}
        # A digest, because names of all who were active in a minute may be long.
        self._where.setdefault((moment.version, moment.cluster), Counter())[hash(profile_id)] += 1

    def __iter__(self) -> Iterator[Segment]:
        for minute in self._closed:
            yield from minute
        yield from self._open()

    def _open(self) -> tuple[Segment, ...]:
        return tuple(
            Segment(self._minute_ms, version, cluster, len(counts), counts.total())
            for (version, cluster), counts in sorted(self._where.items())
        )


def _read(value: bytes) -> tuple[Moment, array[float], dict[str, str]]:
    row: dict[str, Any] = orjson.loads(value)
    probs = array("f")
    for head in HEADS:
        probs.extend(row[head.probs])
    moment = Moment(
        event_id=str(row["last_event_id"]),
        event_at_ms=int(row["last_event_at_ms"]),
        published_at_ms=int(row["published_at_ms"]),
        sequence_no=int(row["sequence_no"]),
        version=str(row["model_version"]),
        labels_id=str(row.get("labels_id", "")),
        cluster=int(row["intent_cluster"]),
        probs=probs,
    )
    labels = {head.name: str(row[head.name]) for head in HEADS}
    return moment, array("f", row["intent_embedding"]), labels


def _shorten(kept: OrderedDict[str, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
