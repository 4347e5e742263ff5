"""What is known of profiles at the time of reading: fresh, stale or absent features."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import compress
from typing import TYPE_CHECKING, Any, Final

from features.schema.fields import FieldType
from features.schema.views import profile_intent
from stream.domain.feature_row import PUBLISHED, IntentRow
from stream.exceptions import TooManyProfilesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from features.reading.rows import Found

MAX_PROFILES: Final = 1_000
"""Profiles of one read at most."""

NAMES: Final = tuple(feature.name for feature in profile_intent.features)
"""What is read of a profile."""

ANCHOR: Final = "sequence_no"
"""Every row has it, and its event time is the row's."""


class Freshness(StrEnum):
    """What a reader may make of a profile's features."""

    FRESH = "fresh"
    """The newest event is recent: the intent is live."""
    STALE = "stale"
    """There are features, but of a session that has ended."""
    ABSENT = "absent"
    """There are none: the profile is unknown, or its features expired, or it was erased."""


@dataclass(frozen=True, slots=True)
class LiveIntent:
    """What is known of one profile at the time of reading.

    Attributes:
        profile_id: The profile that was asked for.
        freshness: The verdict.
        age_ms: Milliseconds since the newest event in the features, by the reader's clock, never
            negative; None where absent.
        row: The features; None where absent. Online `published_at_ms` has whole seconds only.
    """

    profile_id: str
    freshness: Freshness
    age_ms: int | None
    row: IntentRow | None

    @property
    def model_version(self) -> str | None:
        """The model version that made the features; None where absent."""
        return self.row.model_version if self.row else None


class Judge:
    """Makes typed, judged intents of rows that were read.

    Args:
        fresh_for_s: Age, in seconds, up to which features count as fresh.
        clock: Unix time in seconds.
    """

    def __init__(self, fresh_for_s: float, clock: Callable[[], float]) -> None:
        self._fresh_for_ms = fresh_for_s * 1000
        self._clock = clock

    def intents(self, profile_ids: Sequence[str], found: Found) -> list[LiveIntent]:
        """The profiles' intents in their order, of the features `NAMES`."""
        now_ms = int(self._clock() * 1000)
        present = [number is not None for number in found.columns[ANCHOR]]
        rows = _rows(profile_ids, found, present)
        return [
            self._verdict(next(rows), now_ms)
            if is_present
            else LiveIntent(profile_id, Freshness.ABSENT, None, None)
            for profile_id, is_present in zip(profile_ids, present, strict=True)
        ]

    def _verdict(self, row: IntentRow, now_ms: int) -> LiveIntent:
        age_ms = max(0, now_ms - row.last_event_at_ms)
        freshness = Freshness.FRESH if age_ms <= self._fresh_for_ms else Freshness.STALE
        return LiveIntent(row.profile_id, freshness, age_ms, row)


def checked(profile_ids: Sequence[str]) -> int:
    """How many profiles are asked for.

    Raises:
        TooManyProfilesError: for more than `MAX_PROFILES`.
    """
    if len(profile_ids) > MAX_PROFILES:
        raise TooManyProfilesError(
            f"{len(profile_ids):,} profiles in one read; ask for {MAX_PROFILES:,} at most at once."
        )
    return len(profile_ids)


def _rows(profile_ids: Sequence[str], found: Found, present: Sequence[bool]) -> Iterator[IntentRow]:
    """The rows of those that are present."""
    columns: dict[str, Sequence[Any]] = {
        feature.row_field: _filled(feature.type, found.columns[feature.name])
        for feature in profile_intent.features
    }
    columns |= {"profile_id": profile_ids, "last_event_at_ms": found.events_ms}
    for values in compress(zip(*(columns[name] for name in PUBLISHED), strict=True), present):
        yield IntentRow.of(dict(zip(PUBLISHED, values, strict=True)))


def _filled(kind: FieldType, column: list[Any]) -> list[Any]:
    """A column as rows have it: null, as in rows of an older release, is empty or 0."""
    if kind is FieldType.UNIX_TIMESTAMP:
        return [1000 * (seconds or 0) for seconds in column]
    nothing = _NOTHING.get(kind, list)
    return [nothing() if value is None else value for value in column]


_NOTHING: Final[dict[FieldType, Callable[[], Any]]] = {
    FieldType.STRING: str,
    FieldType.INT64: int,
    FieldType.FLOAT32: float,
}
