"""Points in time as text, read by the grammar of RFC 3339 alone.

`datetime.fromisoformat` takes more: times without an offset, which it places in the machine's own
zone, week dates, and times of day that are cut short. Producers mean different instants by these.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_DATE_TIME: Final = re.compile(
    r"(?P<minute>\d{4}-\d{2}-\d{2}T\d{2}:\d{2}):(?P<second>\d{2})(?P<fraction>\.\d+)?"
    r"(?P<offset>Z|[+-]\d{2}:\d{2})?",
    re.ASCII | re.IGNORECASE,
)
"""Section 5.6, its offset made optional, so that a missing one can be told."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LEAP_SECOND: Final = 60


def unix_ms(text: str) -> int:
    """The Unix milliseconds of a `date-time` of RFC 3339, section 5.6; a part of one is dropped.

    A leap second is the second after it, as Unix time has none.

    Raises:
        ValueError: when `text` is none, with what is wrong.
    """
    parts = _DATE_TIME.fullmatch(text)
    if parts is None:
        raise ValueError("it is not of the form 2026-01-31T12:00:00Z (RFC 3339)")
    if parts["offset"] is None:
        raise ValueError("it has no offset: end it with Z or with one like +01:00 (RFC 3339)")
    leap = int(parts["second"]) == _LEAP_SECOND
    second = "59" if leap else parts["second"]
    whole = f"{parts['minute']}:{second}{parts['offset']}".upper()
    try:
        at = datetime.fromisoformat(whole)
    except ValueError:
        raise ValueError("there is no such time") from None
    fraction_ms = int(f"{parts['fraction'] or '.'}000"[1:4])
    return (at - _EPOCH) // timedelta(milliseconds=1) + 1000 * leap + fraction_ms
