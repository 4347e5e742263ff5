"""Our own events: what they say, as it is."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from stream.adapters.adapter import Adapted, Adapter, Options, Record, told
from stream.adapters.values import number, quoted, text, whole
from stream.domain.event_types import EVENT_TYPES
from stream.exceptions import BadRecordError, Reason

_SECONDS: Final = ("watched_s", "position_s", "duration_s")
_WHOLE: Final = ("season", "episode")
FIELDS: Final = tuple(dict.fromkeys(name for one in EVENT_TYPES for name in one.shape.model_fields))


def read(record: Record, _: Options) -> Adapted:
    """The event. What a table of text holds as text is a number where it must be one."""
    return told({name: _value(name, record.get(name)) for name in FIELDS})


def _value(name: str, value: Any) -> Any:
    if name == "occurred_at_ms":
        return _milliseconds(value)
    if name in _SECONDS:
        return number(value, name)
    if name in _WHOLE:
        return whole(value, name)
    return text(value, name)


def _milliseconds(value: Any) -> int | None:
    # Avro's and Parquet's own types of time come as `datetime`.
    if not isinstance(value, datetime):
        return whole(value, "occurred_at_ms")
    if value.tzinfo is None:
        raise BadRecordError(
            Reason.WRONG_TYPE, f"occurred_at_ms is {quoted(value)}, a time without an offset"
        )
    return round(value.timestamp() * 1000)


ADAPTER: Final = Adapter("intent", Options, read)
