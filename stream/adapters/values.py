"""Values of records as typed ones: text, numbers, times. Absent, null and empty are None."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID

import xxhash

from stream.domain import rfc3339
from stream.domain.event_types import LONGEST_ID
from stream.exceptions import BadRecordError, Reason

_T = TypeVar("_T")

_EPOCH: Final = datetime(1970, 1, 1)
EARLIEST_MS: Final = 631_152_000_000
"""1990: no player is older. A clock that was never set says 1970 or 1980."""

_OFFSET: Final = re.compile(r"(Z|[+-]\d{2}:\d{2})$", re.IGNORECASE)
_ORDINAL: Final = re.compile(r"\D*(\d{1,9})\D*", re.ASCII)
_CLOCK: Final = re.compile(r"(\d{1,4}):([0-5]\d):([0-5]\d)", re.ASCII)
_LONGEST_QUOTE: Final = 64


def at(record: Any, path: str) -> Any:
    """The value at a dotted path; of a list on the way its first item. None where it isn't there.

    A key may have dots itself.
    """
    if not isinstance(record, dict):  # what a record nearly always is, and told at once
        if isinstance(record, Sequence) and not isinstance(record, str | bytes):
            record = record[0] if record else None
        if not isinstance(record, Mapping):
            return None
    if path in record:
        return record[path]
    head, dot, rest = path.partition(".")
    return at(record[head], rest) if dot and head in record else None


def first(record: Any, paths: Sequence[str]) -> Any:
    """The first value of these paths that is there and isn't empty."""
    found = (at(record, path) for path in paths)
    return next((value for value in found if value is not None and value != ""), None)


def text(value: Any, name: str) -> str | None:
    """Text; whole numbers, as ids often are, are written out.

    Raises:
        BadRecordError: when it is anything else.
    """
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int) and not isinstance(value, bool):
        return _written(value, name)
    if isinstance(value, UUID):
        return str(value)
    if value is None:
        return None
    raise BadRecordError(Reason.WRONG_TYPE, f"{name} is {quoted(value)}, no text")


def label(value: Any, name: str) -> str | None:
    """Text of a device or the like, as long as one may be."""
    given = text(value, name)
    return given[:LONGEST_ID] if given else None


def number(value: Any, name: str) -> float | None:
    """A number, also one that is written as text.

    Raises:
        BadRecordError: when it is none.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str | int | float | Decimal) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise BadRecordError(Reason.WRONG_TYPE, f"{name} is {quoted(value)}, no number")


def whole(value: Any, name: str) -> int | None:
    """A whole number, also one that is written as text or with a fraction of 0.

    Raises:
        BadRecordError: when it is none.
    """
    given = number(value, name)
    if given is None:
        return None
    if isinstance(value, int):
        return value
    if not given.is_integer():
        raise BadRecordError(Reason.WRONG_TYPE, f"{name} is {quoted(value)}, no whole number")
    return int(given)


def above_zero(value: Any, name: str) -> float | None:
    """A number of seconds of which 0 says that nobody knew it."""
    given = number(value, name)
    return given if given else None


def ordinal(value: Any, name: str) -> int | None:
    """The number of a season or an episode, which may be in words: "2", "S02", "Season 2".

    None where there is no number, or more than one, in it.
    """
    if isinstance(value, str):
        found = _ORDINAL.fullmatch(value)
        return int(found[1]) if found else None
    return whole(value, name)


def flag(value: Any) -> bool | None:
    """Yes or no, also in words; None where it is neither."""
    if isinstance(value, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, bool | int) else None


def clock_s(value: Any, name: str) -> float | None:
    """The seconds of `H:MM:SS`.

    Raises:
        BadRecordError: when it isn't of that form.
    """
    written = text(value, name)
    if written is None:
        return None
    found = _CLOCK.fullmatch(written)
    if found is None:
        raise BadRecordError(Reason.WRONG_TYPE, f"{name} is {quoted(written)}, not H:MM:SS")
    hours, minutes, seconds = map(int, found.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def time_ms(value: Any, name: str, zone: tzinfo | None = None) -> int:
    """A point in time as Unix milliseconds.

    Args:
        value: RFC 3339, also with a space for its T, or a `datetime`.
        name: what it is called.
        zone: of times without an offset. Of an hour that the clocks show twice, the first is meant.

    Raises:
        BadRecordError: when it is no time, has no offset where no zone is given, is of an hour that
            the clocks of the zone passed over, or of a clock that was never set.
    """
    if isinstance(value, datetime):
        value = value.isoformat()
    written = required(text(value, name), name).replace(" ", "T", 1)
    try:
        if zone is None or _OFFSET.search(written):
            return set_clock(rfc3339.unix_ms(written), name)
        local_ms = rfc3339.unix_ms(f"{written}Z")
    except ValueError as error:
        raise BadRecordError(Reason.WRONG_TYPE, f"{name} is {quoted(written)}: {error}") from None
    set_clock(local_ms, name)
    local = (_EPOCH + timedelta(milliseconds=local_ms)).replace(tzinfo=zone)
    offset, later = (local.replace(fold=fold).utcoffset() or timedelta() for fold in (0, 1))
    if offset < later:  # as of an hour that isn't there alone: PEP 495
        detail = f"{name} is {quoted(written)}, which the clocks of {zone} passed over"
        raise BadRecordError(Reason.OUT_OF_RANGE, detail)
    return local_ms - offset // timedelta(milliseconds=1)


def seconds_ms(value: Any, name: str) -> int:
    """A Unix time in seconds, as milliseconds.

    Raises:
        BadRecordError: when it is none, or of a clock that was never set.
    """
    given = required(number(value, name), name)
    if not 0 <= given < 1 << 43:
        raise BadRecordError(Reason.OUT_OF_RANGE, f"{name} is {quoted(value)}, no Unix time")
    return set_clock(round(given * 1000), name)


def set_clock(time: int, name: str) -> int:
    """`time`, in Unix milliseconds, of a clock that was set.

    Raises:
        BadRecordError: when it is before 1990.
    """
    if time < EARLIEST_MS:
        raise BadRecordError(
            Reason.OUT_OF_RANGE, f"{name} is before 1990: of a clock that was never set"
        )
    return time


def required(value: _T | None, name: str) -> _T:
    """A value that is there.

    Raises:
        BadRecordError: when it isn't.
    """
    if value is None:
        raise BadRecordError(Reason.MISSING_FIELD, f"{name} is missing")
    return value


def made_id(*parts: object) -> str:
    """An id for what these parts identify: the same whenever it is made of the same.

    Of 32 characters, by xxh3 of 128 bits.
    """
    written = "\x1f".join("" if part is None else str(part) for part in parts)
    return xxhash.xxh3_128_hexdigest(written.encode(errors="surrogatepass"))


def after(start_ms: int, seconds: float) -> int:
    """So many seconds after a time, in Unix milliseconds.

    Raises:
        BadRecordError: when so many are no sitting's.
    """
    if not 0 <= seconds <= 1_000_000:
        raise BadRecordError(Reason.OUT_OF_RANGE, f"a sitting of {seconds:g} s")
    return start_ms + round(seconds * 1000)


def quoted(value: Any) -> str:
    """A value for a message, cut short."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, str | int | float | bool) or value is None:
        whole_text = repr(value) if not isinstance(value, int) else _short(value)
        long = len(whole_text) > _LONGEST_QUOTE
        return f"{whole_text[:_LONGEST_QUOTE]}…" if long else whole_text
    return f"a {type(value).__name__}"


def _short(value: int) -> str:
    return str(value) if abs(value) < 10**30 else "a huge number"


def _written(value: int, name: str) -> str:
    if abs(value) >= 1 << 128:
        raise BadRecordError(Reason.OUT_OF_RANGE, f"{name} is a huge number")
    return str(value)
