"""Checks a replay: is every record sent reflected in the features, or rejected as it should be?

Recomputes from the records sent what each profile's features must say, and compares it with what
Feast answers and with what lies on the dead-letter and late-events topics. It shares the table
of event types with the worker's session logic and no code, so that a mistake there can't hide here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd
from aiokafka import TopicPartition

from features.reading.reader import IntentReader
from lab.replay.plan import Fate
from stream.domain.event_types import COMPLETING, STATELESS
from stream.domain.labels import hash64
from stream.domain.topics import (
    BROWSE_DLQ,
    BROWSE_EVENTS,
    LATE_EVENTS,
    PLAYBACK_DLQ,
    PLAYBACK_EVENTS,
)
from stream.kafka.connection import running
from stream.kafka.consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from stream.settings import Settings

REASON_HEADER: Final = "intent.reason"
ORIGIN_HEADERS: Final = (
    "__connect.errors.topic",
    "__connect.errors.partition",
    "__connect.errors.offset",
)
BEFORE_WINDOW: Final = "before_window"
SHOWN_MISMATCHES: Final = 10

_DLQ_OF: Final = {PLAYBACK_EVENTS: PLAYBACK_DLQ, BROWSE_EVENTS: BROWSE_DLQ}
_READ_PROFILES: Final = 500


class Origin(NamedTuple):
    """Where a record was sent to; the topic without the prefix."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record found on a dead-letter topic or on late-events: which topic, and its reason."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class FeatureFacts:
    """What a profile's features say, or must say, of the events in them."""

    sequence_no: int
    last_event_id: str
    last_event_at_ms: int


@dataclass(slots=True)
class CheckResult:
    """What became of the records sent.

    Attributes:
        events_sent: all records.
        applied: stateful events that the features reflect, each counted once.
        stateless: impressions and removals from the list, which only have to be let through.
        duplicates: records that repeat an event, and changed nothing.
        late: records on late-events.
        dead_lettered: records on the dead-letter topics.
        missing: records whose effect, dead letter or late event is absent.
        wrong: profiles whose features differ otherwise, and records rejected without cause or
            with another reason than they should have.
        profiles: profiles with state.
        bounded_profiles: profiles with an event that had left the window before it came; their
            `sequence_no` is only known to lie between two bounds.
        mismatches: everything that is missing or wrong, in words.
    """

    events_sent: int = 0
    applied: int = 0
    stateless: int = 0
    duplicates: int = 0
    late: int = 0
    dead_lettered: int = 0
    missing: int = 0
    wrong: int = 0
    profiles: int = 0
    bounded_profiles: int = 0
    mismatches: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing and nothing is wrong."""
        return not self.missing and not self.wrong

    def complain(self, what: str, *, missing: int = 0, wrong: int = 0) -> None:
        """Count a mismatch and keep its description."""
        self.missing += missing
        self.wrong += wrong
        self.mismatches.append(what)


def check(sent: pa.Table, settings: Settings) -> CheckResult:
    """Check a replay after the worker has acknowledged all of it.

    Args:
        sent: by `lab.replay.producer.SENT_SCHEMA`.
        settings: where Kafka and Feast's online store are, and the window's length.

    Raises:
        BrokerUnavailableError: when the topics can't be read.
    """
    records = sent.to_pandas()
    rejected = asyncio.run(read_rejected(settings))
    profiles = records.loc[records.fate == Fate.GOOD, "profile_id"].unique()
    served = read_served(IntentReader(settings), profiles)
    return compare(records, rejected, served, window_length=settings.window_length)


def compare(
    records: pd.DataFrame,
    rejected: dict[Origin, Rejection],
    served: dict[str, FeatureFacts],
    *,
    window_length: int,
) -> CheckResult:
    """Compare what was sent with what was found.

    Args:
        records: rows by `lab.replay.producer.SENT_SCHEMA`.
        rejected: everything found on the dead-letter and late-events topics.
        served: features by profile; profiles without features are absent.
        window_length: interactions that the worker's window holds.
    """
    result = CheckResult(events_sent=len(records))
    origins = map(Origin, records.topic, records.partition, records.offset)
    found = [rejected.get(origin) for origin in origins]
    records = records.assign(
        found_on=[place.topic if place else "" for place in found],
        found_reason=[place.reason if place else "" for place in found],
    )
    result.late = int((records.found_on == LATE_EVENTS).sum())
    result.dead_lettered = int(records.found_on.isin(_DLQ_OF.values()).sum())
    _check_crafted(records[records.fate >= Fate.TOO_LATE], result)
    clean = records[records.fate <= Fate.REPEAT]
    result.duplicates = int(((clean.fate == Fate.REPEAT) & (clean.found_on == "")).sum())
    is_stateless = clean.event_type.isin(STATELESS)
    result.stateless = int(
        (is_stateless & (clean.fate == Fate.GOOD) & (clean.found_on == "")).sum()
    )
    _check_profiles(clean, ~is_stateless, served, window_length, result)
    return result


def _check_crafted(crafted: pd.DataFrame, result: CheckResult) -> None:
    """Each must lie on the one topic where it belongs, with its reason."""
    too_late = crafted.fate == Fate.TOO_LATE
    belongs_on = np.where(too_late, LATE_EVENTS, crafted.topic.map(_DLQ_OF))
    right = (crafted.found_on == belongs_on) & (crafted.found_reason == crafted.reason)
    for record, place in zip(crafted[~right].itertuples(), belongs_on[~right], strict=True):
        expected = f"{_name(record)} should be on {place} for {record.reason}"
        if record.found_on:
            result.complain(
                f"{expected}, is on {record.found_on} for {record.found_reason}", wrong=1
            )
        else:
            result.complain(f"{expected}, is nowhere", missing=1)


def _check_profiles(
    clean: pd.DataFrame,
    stateful: pd.Series[bool],
    served: dict[str, FeatureFacts],
    window_length: int,
    result: CheckResult,
) -> None:
    excused = _excused(clean, stateful, window_length)
    rejected = clean.found_on != ""
    for record in clean[rejected & ~excused].itertuples():
        result.complain(
            f"{_name(record)}, a valid event, was rejected, to {record.found_on} "
            f"for {record.found_reason}",
            wrong=1,
        )
    everything = expected_features(clean[stateful])
    without_late = expected_features(clean[stateful & ~excused])
    bounded = set(clean.loc[excused, "profile_id"])
    good = clean[stateful & (clean.fate == Fate.GOOD) & ~rejected]
    events_of = good.groupby("profile_id").size()
    result.profiles = len(everything)
    result.bounded_profiles = len(bounded)
    for profile, most in everything.items():
        features = served.get(profile)
        events = int(events_of.get(profile, 0))
        if features is None:
            result.complain(
                f"profile {profile} has no features after {events} events", missing=max(events, 1)
            )
            continue
        least = without_late.get(profile, most) if profile in bounded else most
        complaint = _difference(features, least, most)
        if complaint is None:
            result.applied += events
        elif features.sequence_no < least.sequence_no:
            result.complain(f"profile {profile}: {complaint}", missing=1)
        else:
            result.complain(f"profile {profile}: {complaint}", wrong=1)


def _excused(clean: pd.DataFrame, stateful: pd.Series[bool], window_length: int) -> pd.Series[bool]:
    """Events on late-events that may be there: their interaction can have left the window.

    It can when at least half a window of interactions of the profile begin no earlier than it.
    """
    claims = stateful & (clean.found_on == LATE_EVENTS) & (clean.found_reason == BEFORE_WINDOW)
    if not claims.any():
        return claims
    interactions = _interactions(clean[stateful])
    starts = {
        profile: np.sort(begun.to_numpy())
        for profile, begun in interactions.groupby("profile_id").start_ms
    }
    start_of = interactions.set_index(["profile_id", "key"]).start_ms
    for index, key in _keys(clean[claims]).items():
        profile = clean.profile_id[index]
        begun = starts[profile]
        place = np.searchsorted(begun, start_of[profile, key])
        claims[index] = len(begun) - place - 1 >= window_length // 2
    return claims


def expected_features(events: pd.DataFrame) -> dict[str, FeatureFacts]:
    """Recompute, from stateful events, what the features of their profiles must say.

    `sequence_no` sums over a profile's interactions: 1, their length, watch time and position in
    milliseconds, and 1 more for each of these two that is told, and when complete. Repeated rows
    change nothing.
    """
    interactions = _interactions(events)
    measure = (
        1
        + (interactions.end_ms - interactions.start_ms)
        + interactions.told_ms
        + interactions.complete
    )
    sequence_no = measure.groupby(interactions.profile_id).sum()
    newest_at = events.groupby("profile_id").occurred_at_ms.transform("max")
    newest = events[events.occurred_at_ms == newest_at]
    expected = {}
    for profile, tied in newest.groupby("profile_id"):
        last = max(tied.event_id, key=hash64)
        at_ms = int(tied.occurred_at_ms.iloc[0])
        expected[str(profile)] = FeatureFacts(int(sequence_no[profile]), last, at_ms)
    return expected


def _interactions(events: pd.DataFrame) -> pd.DataFrame:
    """One row per interaction: profile_id, key, start_ms, end_ms, told_ms, complete (0 or 1).

    `told_ms` sums watch time and position, each 1 more where it is told.
    """
    rows = pd.DataFrame(
        {
            "profile_id": events.profile_id,
            "key": _keys(events),
            "at_ms": events.occurred_at_ms.astype(np.int64),
            "watched_ms": (events.watched_s * 1000).round().fillna(-1).astype(np.int64) + 1,
            "position_ms": (events.position_s * 1000).round().fillna(-1).astype(np.int64) + 1,
            "complete": events.event_type.isin(COMPLETING).astype(np.int64),
        }
    )
    interactions = (
        rows.groupby(["profile_id", "key"], sort=False)
        .agg(
            start_ms=("at_ms", "min"),
            end_ms=("at_ms", "max"),
            watched_ms=("watched_ms", "max"),
            position_ms=("position_ms", "max"),
            complete=("complete", "max"),
        )
        .reset_index()
    )
    interactions["told_ms"] = interactions.watched_ms + interactions.position_ms
    return interactions


def _keys(events: pd.DataFrame) -> pd.Series:
    """The sitting of each playback event, the event itself of each other."""
    parts = [events.playback_id, events.title_id]
    parts += [events[name].fillna(0).astype(int).astype(str) for name in ("season", "episode")]
    sitting = parts[0].str.cat(parts[1:], sep="\t")
    return sitting.fillna(events.event_id)


def _difference(features: FeatureFacts, least: FeatureFacts, most: FeatureFacts) -> str | None:
    if not least.sequence_no <= features.sequence_no <= most.sequence_no:
        bounds = (
            f"{most.sequence_no}"
            if least == most
            else f"between {least.sequence_no} and {most.sequence_no}"
        )
        return f"sequence_no is {features.sequence_no}, should be {bounds}"
    allowed = [(expected.last_event_id, expected.last_event_at_ms) for expected in (least, most)]
    if (features.last_event_id, features.last_event_at_ms) not in allowed:
        return (
            f"the last event is {features.last_event_id} at {features.last_event_at_ms}, "
            f"should be {most.last_event_id} at {most.last_event_at_ms}"
        )
    return None


def _name(record: Any) -> str:
    fate = Fate(record.fate).name.lower().replace("_", "-")
    event = "" if pd.isna(record.event_id) else f" {record.event_id}"
    return f"{fate} record{event} ({record.topic} {record.partition}@{record.offset})"


async def read_rejected(settings: Settings) -> dict[Origin, Rejection]:
    """Everything on the dead-letter and late-events topics, by where it was sent to first.

    A record that was redelivered after a crash may lie there twice; it counts once.
    """
    names = {settings.topic(name): name for name in (PLAYBACK_DLQ, BROWSE_DLQ, LATE_EVENTS)}
    plain = {settings.topic(name): name for name in (PLAYBACK_EVENTS, BROWSE_EVENTS)}
    found: dict[Origin, Rejection] = {}
    async with running(Consumer, settings) as consumer:
        partitions = [
            TopicPartition(name, partition)
            for name in names
            for partition in range(settings.topic_partitions)
        ]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        async for record in consumer.until(ends):
            headers = dict(record.headers)
            topic, partition, offset = (headers[h].decode() for h in ORIGIN_HEADERS)
            found[Origin(plain[topic], int(partition), int(offset))] = Rejection(
                names[record.topic], headers[REASON_HEADER].decode()
            )
    return found


def read_served(reader: IntentReader, profiles: Iterable[str]) -> dict[str, FeatureFacts]:
    """What Feast's own API answers for `profiles`; those without features are left out."""
    profiles = list(profiles)
    served = {}
    for start in range(0, len(profiles), _READ_PROFILES):
        for intent in reader.read(profiles[start : start + _READ_PROFILES]):
            if row := intent.row:
                served[row.profile_id] = FeatureFacts(
                    row.sequence_no, row.last_event_id, row.last_event_at_ms
                )
    return served
