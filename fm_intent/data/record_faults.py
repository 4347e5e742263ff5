"""Faults that a record of an event shows alone, in SQL over the columns of `EVENTS_SCHEMA`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fm_intent.data.files import text
from stream.adapters.values import EARLIEST_MS
from stream.domain.event_types import BY_NAME, EVENT_TYPES, LONGEST_ID, PLAYS, Search

AHEAD_MS: Final = 300_000
"""Event time may be this much ahead of now, as on live topics."""


def texts(values: Iterable[str]) -> str:
    """A list of texts in SQL."""
    return f"({', '.join(map(text, values))})"


NO_RECORD: Final = (
    "coalesce(event_id, profile_id, event_type, title_id, time_text) IS NULL "
    "AND occurred_at_ms IS NULL"
)
_WITH_TITLE: Final = texts(one.name for one in EVENT_TYPES if one.shape is not Search)
_MISSING: Final = (
    f"NOT ({NO_RECORD}) AND (event_id IS NULL OR profile_id IS NULL OR event_type IS NULL "
    f"OR (title_id IS NULL AND event_type IN {_WITH_TITLE}) "
    f"OR (playback_id IS NULL AND event_type IN {texts(PLAYS)}))"
)
_TOO_LONG: Final = " OR ".join(
    f"length({name}) > {LONGEST_ID}"
    for name in ("event_id", "profile_id", "title_id", "playback_id")
)
_ODD_NUMBER: Final = " OR ".join(
    [f"NOT ({name} BETWEEN 0 AND 1000000)" for name in ("watched_s", "position_s", "duration_s")]
    + [f"NOT ({name} BETWEEN 0 AND 32767)" for name in ("season", "episode")]
)
_PADDED: Final = " OR ".join(
    f"length(trim({name}, ' ' || chr(9) || chr(10) || chr(13) || chr(160))) < length({name})"
    for name in ("event_id", "profile_id", "title_id", "playback_id")
)
RECORD_FAULTS: Final = {
    name: (has, of or f"NOT ({NO_RECORD})")
    for name, has, of in (
        ("line_unreadable", NO_RECORD, "true"),
        ("type_unknown", f"event_type NOT IN {texts(BY_NAME)}", ""),
        ("field_missing", _MISSING, ""),
        ("id_too_long", _TOO_LONG, ""),
        ("id_padded", _PADDED, ""),
        ("time_unreadable", f"occurred_at_ms IS NULL AND NOT ({NO_RECORD})", ""),
        ("time_out_of_range", f"NOT (occurred_at_ms BETWEEN 0 AND {(1 << 53) - 1})", ""),
        ("time_before_1990", f"occurred_at_ms BETWEEN 0 AND {EARLIEST_MS - 1}", ""),
        (
            "time_in_future",
            f"occurred_at_ms > $now + {AHEAD_MS} AND occurred_at_ms < {1 << 53}",
            "",
        ),
        ("title_unknown", "NOT is_known", "title_id IS NOT NULL"),
        ("device_missing", f"device IS NULL AND NOT ({NO_RECORD})", ""),
        ("number_unreadable", "number_text IS NOT NULL", ""),
        ("number_out_of_range", _ODD_NUMBER, ""),
    )
}
"""Which records have a fault, and which could, in SQL."""

REFUSED: Final = (
    "line_unreadable",
    "field_missing",
    "type_unknown",
    "id_too_long",
    "time_unreadable",
    "time_out_of_range",
    "time_before_1990",
    "time_in_future",
    "number_out_of_range",
)
"""Those of which a live event would be a dead letter, and two of clocks that were never set."""


def refusal(now_ms: int) -> str:
    """SQL of the first of `REFUSED` that a record has; null where it has none.

    Args:
        now_ms: Unix milliseconds, beyond which events can't have happened.
    """
    cases = " ".join(
        f"WHEN {RECORD_FAULTS[name][0]} THEN {text(name)}" for name in REFUSED
    ).replace("$now", str(now_ms))
    return f"CASE {cases} END"
