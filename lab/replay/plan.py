"""What a replay sends, in which order, and what has to become of each record. Pure and seeded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lab.exceptions import EmptyReplayError
from lab.replay.damage import DAY_MS, KINDS
from stream.domain.event_types import STATELESS, types_on
from stream.domain.topics import BROWSE_EVENTS, PLAYBACK_EVENTS

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

BEHIND_BROKER: Final = "behind_broker"
"""Reason that a record on `late-events` must have that came later than is allowed."""


class Fate(IntEnum):
    """What a record of the replay is."""

    GOOD = 0
    REPEAT = 1
    TOO_LATE = 2
    MALFORMED = 3


@dataclass(frozen=True, slots=True)
class Mix:
    """What is mixed in on purpose, as shares of the clean events."""

    repeats: float = 0.03
    disorder: float = 0.05
    too_late: float = 0.003
    malformed: float = 0.005
    reach: int = 300
    """A repeat or a delayed event comes up to so many events after its place."""
    newer: int = 16
    """At most so many newer events of its profile come before it: less than half a window."""


@dataclass(frozen=True, slots=True)
class Crafted:
    """A record that is no event of the source."""

    topic: str
    key: bytes | None
    value: bytes | None
    reason: str
    """What the record on the dead-letter or late-events topic must give as its reason."""


@dataclass(frozen=True, slots=True)
class Plan:
    """N records in the order of sending.

    Attributes:
        events: the clean events [E] in the contract on disk, at the times that were asked for.
        crafted: the too-late and malformed records.
        fate: `Fate` of each record, uint8 [N].
        row: index into `events` of a good or repeated record, else into `crafted`, int64 [N].
        delayed: how many good records come after their place.
    """

    events: pa.Table
    crafted: tuple[Crafted, ...]
    fate: NDArray[np.uint8]
    row: NDArray[np.int64]
    delayed: int

    def __len__(self) -> int:
        return len(self.fate)

    def count(self, fate: Fate) -> int:
        """How many records are of this fate."""
        return int((self.fate == fate).sum())


def sample_profiles(events: pa.Table, *, seed: int, profiles: int | None = None) -> pa.Table:
    """The whole histories of `profiles` profiles, drawn by `seed`; all when there are no more."""
    if profiles is None:
        return events
    known = pc.unique(events["profile_id"]).sort()
    chosen = np.random.default_rng(seed).permutation(len(known))[:profiles]
    return events.filter(pc.is_in(events["profile_id"], value_set=known.take(pa.array(chosen))))


def span_s(events: pa.Table) -> float:
    """Seconds of event time that `events` cover."""
    times = events["occurred_at_ms"]
    return float(pc.max(times).as_py() - pc.min(times).as_py()) / 1000


def plan_replay(
    events: pa.Table,
    *,
    seed: int,
    now_ms: int,
    lateness_s: float,
    mix: Mix | None = None,
    prefix: str = "",
    shift: bool = True,
) -> Plan:
    """Plan the replay of `events`.

    Gaps in event time stay as they are. Order is that of event time but for the disorder mixed in.

    Args:
        events: clean events in the contract on disk and its order.
        seed: for all that is drawn.
        now_ms: about when sending begins, Unix ms.
        lateness_s: the lateness that the worker allows; must reach from now back to the first
            event. Too-late events lie a day to a year beyond it.
        mix: what to mix in; the defaults of `Mix` when left out.
        prefix: put before every profile id, to tell replays into one system apart.
        shift: whether all event times are moved by one constant, so that the newest lies one second
            before `now_ms`. Release days don't move with them: titles are older then by as much.

    Raises:
        EmptyReplayError: when there are no events.
    """
    if not len(events):
        raise EmptyReplayError("the source has no events for this replay; sample more profiles")
    mix = mix or Mix()
    rng = np.random.default_rng(seed)
    if shift:
        by_ms = now_ms - 1000 - pc.max(events["occurred_at_ms"]).as_py()
        events = _replaced(events, "occurred_at_ms", pc.add(events["occurred_at_ms"], by_ms))
    events = _replaced(
        events, "profile_id", pc.binary_join_element_wise(prefix, events["profile_id"], "")
    )
    count = len(events)
    place = np.arange(count, dtype=np.float64)
    latest = _latest_places(events, mix.newer)

    def later(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        wanted = place[rows] + rng.integers(1, mix.reach + 1, len(rows)) + 0.5
        bounded: NDArray[np.float64] = np.minimum(wanted, latest[rows])
        return bounded

    draws = rng.random(count)
    delayed = np.flatnonzero(draws < mix.disorder)
    repeated = np.flatnonzero((draws >= mix.disorder) & (draws < mix.disorder + mix.repeats))
    repeats_at = later(repeated)
    place[delayed] = later(delayed)
    crafted, fates = _craft(events, mix, rng, now_ms, lateness_s)
    places = np.concatenate([place, repeats_at, rng.uniform(0, count, len(crafted))])
    order = np.argsort(places, kind="stable")
    fate = np.concatenate(
        [np.full(count, Fate.GOOD), np.full(len(repeated), Fate.REPEAT), fates]
    ).astype(np.uint8)
    row = np.concatenate([np.arange(count), repeated, np.arange(len(crafted))])
    return Plan(events, tuple(crafted), fate[order], row[order], delayed=len(delayed))


def topic_of(event_type: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Whether each event goes to the playback topic (else to the browse topic)."""
    is_playback: NDArray[np.bool_] = pc.is_in(
        event_type, pa.array(types_on(PLAYBACK_EVENTS))
    ).to_numpy()
    return is_playback


def json_values(events: pa.Table) -> list[bytes]:
    """The record value of each event: its JSON object, without the fields that are null."""
    return [orjson.dumps(fields) for fields in json_objects(events)]


def json_objects(events: pa.Table) -> list[dict[str, Any]]:
    """Each event as its JSON object, without the fields that are null."""
    given = [name for name in events.column_names if events[name].null_count < len(events)]
    rows = zip(*(events[name].to_pylist() for name in given), strict=True)
    return [
        {name: value for name, value in zip(given, row, strict=True) if value is not None}
        for row in rows
    ]


def _latest_places(events: pa.Table, newer: int) -> NDArray[np.float64]:
    """Just before the `newer`-th next stateful event of the same profile, for each event."""
    carries = ~pc.is_in(events["event_type"], value_set=pa.array(STATELESS)).to_numpy()
    rows = np.flatnonzero(carries)
    profile = events["profile_id"].combine_chunks().dictionary_encode().indices.to_numpy()[rows]
    order = np.argsort(profile, kind="stable")
    by_profile, rows = profile[order], rows[order]
    bound = np.full(len(rows), np.inf)
    if len(rows) > newer:
        same = by_profile[newer:] == by_profile[:-newer]
        bound[:-newer] = np.where(same, rows[newer:] - 0.5, np.inf)
    latest = np.full(len(events), np.inf)
    latest[rows] = bound
    return latest


def _craft(
    events: pa.Table, mix: Mix, rng: Generator, now_ms: int, lateness_s: float
) -> tuple[list[Crafted], NDArray[np.int64]]:
    """Too-late and malformed records, made of events of the source that get ids of their own."""
    late_count = max(1, round(mix.too_late * len(events))) if mix.too_late else 0
    # Every kind occurs, in however short a replay.
    bad_count = max(len(KINDS), round(mix.malformed * len(events))) if mix.malformed else 0
    late_rows = rng.integers(0, len(events), late_count)
    plays = np.flatnonzero(topic_of(events["event_type"]))
    bad_rows = rng.choice(plays, bad_count) if len(plays) else np.empty(0, np.int64)
    crafted = []
    for number, fields in enumerate(json_objects(events.take(pa.array(late_rows)))):
        behind_ms = round(lateness_s * 1000) + int(rng.integers(DAY_MS, 365 * DAY_MS))
        fields |= {"event_id": f"late-{number:06d}", "occurred_at_ms": max(now_ms - behind_ms, 0)}
        topic = BROWSE_EVENTS
        if "playback_id" in fields:
            topic = PLAYBACK_EVENTS
            fields["playback_id"] = fields["event_id"]
        key = fields["profile_id"].encode()
        crafted.append(Crafted(topic, key, orjson.dumps(fields), BEHIND_BROKER))
    for number, fields in enumerate(json_objects(events.take(pa.array(bad_rows)))):
        name = f"bad-{number:06d}"
        fields |= {"event_id": name, "playback_id": name, "occurred_at_ms": now_ms}
        bad = KINDS[number % len(KINDS)].apply(fields)
        crafted.append(Crafted(bad.topic, bad.key, bad.value, bad.reason.value))
    fates = np.repeat([Fate.TOO_LATE, Fate.MALFORMED], [late_count, len(bad_rows)])
    return crafted, fates


def _replaced(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
