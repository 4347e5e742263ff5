"""The state of one profile: a join over its interactions, bounded by a window and a title memory.

Taking in an event is a join (commutative, associative, idempotent), so duplicates, redelivery,
disorder and even two owners of one partition can't make a wrong state.

Erasure is part of the join: of two states the one that was erased later covers the other whole, and
what happened up to an erasure is never taken in again.

At the window's edge: when a window would hold more than `window_length` interactions its oldest
half is dropped at once, so that what a model server caches of the rest stays valid for long. The
`horizon` is the place, in (start, key) order, of the newest interaction dropped. From then on
whatever would be placed at or before the horizon, and whatever belongs to an interaction of the
block dropped last, is late: it changes nothing, and the caller reports it. The laws therefore hold
exactly for histories within one window; beyond it for every event that comes before its interaction
has left the window.

What was consumed before isn't late when it is delivered again: its interaction was taken in and has
left the window, or it was reported then. `read` tells, by the newest record of each event topic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.domain.event_types import BY_NAME, PLAY, Event
from stream.domain.interactions import (
    INTERACTION,
    Interaction,
    InteractionArray,
    interaction_of,
    join,
    measure,
)
from stream.domain.labels import hash64
from stream.domain.progress import progress_of
from stream.domain.rules import Rules
from stream.domain.topics import PLAYBACK_EVENTS

MEMORY: Final = np.dtype([("title", "<i8"), ("progress", "<i8"), ("last_ms", "<i8")])
"""What is remembered of a title whose plays have left the window; see `stream.domain.progress`."""

_NOWHERE: Final = (-(1 << 63), -(1 << 63))


class Outcome(Enum):
    """What an event did to the state."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    LATE = "late"
    STATELESS = "stateless"
    ERASED = "erased"
    FORWARDED = "forwarded"


class LogPosition(NamedTuple):
    """Where a record stands, newer records of a partition after older ones.

    Both the broker's time and the offset tell: an offset alone would speak of a log that was made
    anew, and a time alone of a whole batch, whose records the broker gives the same one.
    """

    at_ms: int
    partition: int
    offset: int

    def is_read(self, newest: LogPosition) -> bool:
        """Whether who has read `newest` has surely read this too; where in doubt it hasn't."""
        return (
            0 <= self.partition == newest.partition
            and self.at_ms <= newest.at_ms
            and self.offset <= newest.offset
        )


UNREAD: Final = LogPosition(-1, -1, -1)
"""The position in a topic from which nothing was read, and in states from before it was kept."""


@dataclass(slots=True)
class ProfileState:
    """All that is kept of one profile.

    `window` `[N]` of `INTERACTION` in (start_ms, key) order; `memory` `[M]` of `MEMORY` by title;
    `dropped` the keys of the block dropped last; `folded` the measure of everything dropped;
    `last_at_ms` and `last_event_id` name the newest event, ties decided by the id's hash;
    `erased_at_ms` is the broker time of the last erasure, 0 where there was none; `read` the newest
    record of the profile that was consumed from the playback and from the browse topic.
    """

    window: InteractionArray = field(default_factory=lambda: np.empty(0, INTERACTION))
    memory: NDArray[Any] = field(default_factory=lambda: np.empty(0, MEMORY))
    dropped: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    horizon: tuple[int, int] = _NOWHERE
    folded: int = 0
    last_at_ms: int = 0
    last_event_id: str = ""
    erased_at_ms: int = 0
    read: tuple[LogPosition, LogPosition] = (UNREAD, UNREAD)

    @property
    def sequence_no(self) -> int:
        """The version of the state: the measure of all interactions ever taken in."""
        return self.folded + measure(self.window)

    def apply(self, event: Event, rules: Rules, place: LogPosition = UNREAD) -> Outcome:
        """Join one event into the state, in place; `place` is where its record stands."""
        interaction = interaction_of(event)
        if interaction is None:
            return Outcome.STATELESS
        playback, browse = self.read
        if BY_NAME[event.event_type].topic == PLAYBACK_EVENTS:
            was_read, self.read = place.is_read(playback), (max(playback, place), browse)
        else:
            was_read, self.read = place.is_read(browse), (playback, max(browse, place))
        found = np.flatnonzero(self.window["key"] == interaction.key)
        if not len(found) and self._is_beyond(interaction):
            return Outcome.UNCHANGED if was_read else Outcome.LATE
        is_newest = self._mark_newest(event.occurred_at_ms, event.event_id)
        if len(found):
            changed = self._join_at(int(found[0]), interaction)
            return Outcome.APPLIED if changed or is_newest else Outcome.UNCHANGED
        self._insert(interaction)
        self._drop_oldest(rules)
        return Outcome.APPLIED

    def erased(self, at_ms: int) -> ProfileState:
        """The state once the profile was erased at `at_ms`; this one if that is no news."""
        return self if at_ms <= self.erased_at_ms else ProfileState(erased_at_ms=at_ms)

    def covers(self, other: ProfileState, rules: Rules) -> bool:
        """Whether this state has all of `other`, so that the join of the two is this one.

        Cheaper than the join: what is alike is told by its bytes, all at once.
        """
        if self.erased_at_ms != other.erased_at_ms:
            return self.erased_at_ms > other.erased_at_ms
        if self.horizon < other.horizon or self.folded < other.folded:
            return False
        if self.read != _later(self.read, other.read):
            return False
        newest = other.last_at_ms, other.last_event_id
        if other.last_event_id and replace(self)._mark_newest(*newest):
            return False
        if self.horizon == other.horizon and not (
            _alike(other.dropped, self.dropped) or np.isin(other.dropped, self.dropped).all()
        ):
            return False
        row_of = {key: row for row, key in enumerate(self.window["key"].tolist())}
        rows = np.array([row_of.get(key, -1) for key in other.window["key"].tolist()], np.intp)
        gone = other.window[rows < 0]
        if not all(self._is_beyond(Interaction._make(row.item())) for row in gone):
            return False
        mine, theirs = self.window[rows[rows >= 0]], other.window[rows >= 0]
        for row in () if _alike(mine, theirs) else range(len(mine)):
            if not _alike(mine[row], theirs[row]):
                known = Interaction._make(mine[row].item())
                if join(known, Interaction._make(theirs[row].item())) != known:
                    return False
        if not len(gone) and _alike(self.memory, other.memory):
            return True
        more = np.concatenate([other.memory, titles_of(gone, rules)])
        return _alike(remember(self.memory, more, rules), self.memory)

    def joined(self, other: ProfileState, rules: Rules) -> ProfileState:
        """The least state that covers this one and `other`, two states of the same profile."""
        if self.erased_at_ms != other.erased_at_ms:
            later = max(self, other, key=lambda state: state.erased_at_ms)
            return replace(later, window=later.window.copy())
        ahead, behind = (self, other) if self.horizon >= other.horizon else (other, self)
        state = ProfileState(
            window=ahead.window.copy(),
            memory=remember(ahead.memory, behind.memory, rules),
            dropped=ahead.dropped,
            horizon=ahead.horizon,
            folded=max(ahead.folded, behind.folded),
            last_at_ms=ahead.last_at_ms,
            last_event_id=ahead.last_event_id,
            erased_at_ms=ahead.erased_at_ms,
            read=_later(ahead.read, behind.read),
        )
        if ahead.horizon == behind.horizon:
            state.dropped = np.union1d(ahead.dropped, behind.dropped)
        if behind.last_event_id:
            state._mark_newest(behind.last_at_ms, behind.last_event_id)
        for row in behind.window:
            interaction = Interaction._make(row.item())
            found = np.flatnonzero(state.window["key"] == interaction.key)
            if len(found):
                state._join_at(int(found[0]), interaction)
            elif state._is_beyond(interaction):
                gone = titles_of(np.array([interaction], INTERACTION), rules)
                state.memory = remember(state.memory, gone, rules)
            else:
                state._insert(interaction)
        state._drop_oldest(rules)
        return state

    def _is_beyond(self, interaction: Interaction) -> bool:
        place = (interaction.start_ms, interaction.key)
        return place <= self.horizon or interaction.key in self.dropped

    def _mark_newest(self, at_ms: int, event_id: str) -> bool:
        if at_ms < self.last_at_ms:
            return False
        is_tie = at_ms == self.last_at_ms and self.last_event_id != ""
        if is_tie and hash64(event_id) <= hash64(self.last_event_id):
            return False
        self.last_at_ms, self.last_event_id = at_ms, event_id
        return True

    def _join_at(self, index: int, interaction: Interaction) -> bool:
        known = Interaction._make(self.window[index].item())
        both = join(known, interaction)
        if both == known:
            return False
        if both.start_ms == known.start_ms:
            self.window[index] = both
        else:
            self.window = np.delete(self.window, index)
            self._insert(both)
        return True

    def _insert(self, interaction: Interaction) -> None:
        window = self.window
        place = (interaction.start_ms, interaction.key)
        index = len(window)
        while index and (window["start_ms"][index - 1], window["key"][index - 1]) > place:
            index -= 1
        grown = np.empty(len(window) + 1, INTERACTION)
        grown[:index] = window[:index]
        grown[index] = interaction
        grown[index + 1 :] = window[index:]
        self.window = grown

    def _drop_oldest(self, rules: Rules) -> None:
        block = rules.window_length // 2
        while len(self.window) > rules.window_length:
            gone, self.window = self.window[:block], self.window[block:].copy()
            self.memory = remember(self.memory, titles_of(gone, rules), rules)
            self.folded += measure(gone)
            self.dropped = np.sort(gone["key"])
            self.horizon = (int(gone["start_ms"][-1]), int(gone["key"][-1]))


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.tobytes() == other.tobytes()


def _later(
    one: tuple[LogPosition, LogPosition], other: tuple[LogPosition, LogPosition]
) -> tuple[LogPosition, LogPosition]:
    """The newer of two records, for each topic."""
    return max(one[0], other[0]), max(one[1], other[1])


def titles_of(interactions: InteractionArray, rules: Rules) -> NDArray[Any]:
    """What there is to remember of these interactions: one `MEMORY` row for each play."""
    plays = interactions[interactions["verb"] == PLAY]
    rows = np.empty(len(plays), MEMORY)
    rows["title"] = plays["title"]
    rows["progress"] = progress_of(plays, rules)
    rows["last_ms"] = plays["end_ms"]
    return rows


def remember(memory: NDArray[Any], more: NDArray[Any], rules: Rules) -> NDArray[Any]:
    """The join of two title memories: maxima by title, the `memory_length` latest titles kept."""
    if not len(more):
        return memory
    rows = np.concatenate([memory, more])
    titles, index = np.unique(rows["title"], return_inverse=True)
    joined = np.zeros(len(titles), MEMORY)
    joined["title"] = titles
    np.maximum.at(joined["progress"], index, rows["progress"])
    np.maximum.at(joined["last_ms"], index, rows["last_ms"])
    if len(joined) > rules.memory_length:
        latest = np.lexsort((joined["title"], joined["last_ms"]))[-rules.memory_length :]
        joined = joined[np.sort(latest)]
    return joined


def state_of(events: Iterable[Event], rules: Rules) -> ProfileState:
    """The state after `events`, in any order."""
    state = ProfileState()
    for event in events:
        state.apply(event, rules)
    return state
