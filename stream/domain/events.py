"""Decode one Kafka record into a typed event, or say why it can't be one.

The same models that validate also give the published JSON Schema (`json_schema`). Unknown fields
are ignored, so that producers may add optional fields at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import ValidationError

from stream.domain.cloudevents import Headers, event_data
from stream.domain.event_types import ADAPTERS, BY_NAME, LONGEST_ID, Event, event_of
from stream.domain.quick_events import READERS, EventFields
from stream.exceptions import BadRecordError, Reason

SCHEMA_TOPICS: Final = tuple(ADAPTERS)
"""Topics whose values have a JSON Schema."""

_REASONS: Final = {
    "missing": Reason.MISSING_FIELD,
    "union_tag_not_found": Reason.MISSING_FIELD,
    "union_tag_invalid": Reason.UNKNOWN_EVENT_TYPE,
    "literal_error": Reason.UNKNOWN_EVENT_TYPE,
    "dict_type": Reason.NOT_AN_OBJECT,
    "model_type": Reason.NOT_AN_OBJECT,
    "model_attributes_type": Reason.NOT_AN_OBJECT,
    "finite_number": Reason.NOT_FINITE,
    "string_too_short": Reason.OUT_OF_RANGE,
    "string_too_long": Reason.OUT_OF_RANGE,
    "greater_than_equal": Reason.OUT_OF_RANGE,
    "less_than": Reason.OUT_OF_RANGE,
    "less_than_equal": Reason.OUT_OF_RANGE,
}


class Unreadable(bytes):
    """The value of a record that stands in for records that can't be unpacked.

    Args:
        data: the bytes.
        why: what is wrong with them.
    """

    why: str

    def __new__(cls, data: bytes, why: str) -> Self:
        """Bytes that say why they are no record."""
        made = super().__new__(cls, data)
        made.why = why
        return made


def check_readable(value: bytes | None, headers: Headers) -> None:
    """Whether the record is what Kafka's format has it be: the broker doesn't look at all of it.

    Args:
        value: the record's value; `Unreadable` where no more than its bytes could be kept.
        headers: the record's headers; bytes of names that aren't UTF-8 are surrogates (PEP 383).

    Raises:
        BadRecordError: when it isn't.
    """
    if isinstance(value, Unreadable):
        raise BadRecordError(Reason.UNREADABLE, value.why)
    for name, _ in headers or ():
        if printable(name) != name:
            raise BadRecordError(
                Reason.BAD_UTF8, f"the name of the header {printable(name)} is not UTF-8"
            )


def printable(name: str) -> str:
    """A header's name, with a backslash escape for each byte that isn't UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def decode(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    *,
    broker_time_ms: int,
    headers: Headers = None,
    max_ahead_s: int = 300,
    max_bytes: int = 65_536,
) -> Event:
    """The event in one record.

    Args:
        topic: `playback-events` or `browse-events`, without the prefix.
        key: the record's key, the UTF-8 profile id.
        value: one JSON object.
        broker_time_ms: the record's timestamp (`LogAppendTime`).
        headers: the record's headers. Where they say that it is a CloudEvent its attributes `id`,
            `type` and `time` stand in for `event_id`, `event_type` and `occurred_at_ms` that the
            data leaves out; see `stream.domain.cloudevents`.
        max_ahead_s: how far event time may be ahead of the broker's.
        max_bytes: a larger value is refused unread.

    Raises:
        BadRecordError: with the reason; no retry can make such a record good.
    """
    event = _validated(topic, value, _data(value, headers, max_bytes))
    _check(event, key, broker_time_ms, max_ahead_s)
    return event


def decode_quickly(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    *,
    broker_time_ms: int,
    headers: Headers = None,
    max_ahead_s: int = 300,
    max_bytes: int = 65_536,
) -> EventFields:
    """What `decode` says, by `stream.domain.quick_events` where that can read it.

    Raises:
        BadRecordError: as `decode`.
    """
    data = _data(value, headers, max_bytes)
    event = READERS[topic](data) or _validated(topic, value, data)
    _check(event, key, broker_time_ms, max_ahead_s)
    return event


def _data(value: bytes | None, headers: Headers, max_bytes: int) -> bytes:
    if not value:
        raise BadRecordError(Reason.EMPTY, "the record has no value")
    if len(value) > max_bytes:
        raise BadRecordError(Reason.OVERSIZED, f"{len(value)} bytes; at most {max_bytes} are taken")
    return event_data(value, headers) if headers else value


def _validated(topic: str, value: bytes | None, data: bytes) -> Event:
    try:
        return ADAPTERS[topic].validate_json(data)
    except ValidationError as error:
        raise _bad_record(value or b"", error) from None


def _check(event: EventFields, key: bytes | None, broker_time_ms: int, max_ahead_s: int) -> None:
    if key is None or key != event.profile_id.encode():
        raise BadRecordError(Reason.KEY_MISMATCH, "the key is not the profile_id as UTF-8 bytes")
    if event.occurred_at_ms > broker_time_ms + max_ahead_s * 1000:
        ahead_s = (event.occurred_at_ms - broker_time_ms) // 1000
        raise BadRecordError(
            Reason.IN_THE_FUTURE,
            f"occurred_at_ms is {ahead_s} s ahead of the broker; at most {max_ahead_s} s may be",
        )


def checked(fields: Mapping[str, Any]) -> Event:
    """The event of these fields, held against the same rules as a record's value.

    Raises:
        BadRecordError: with the first thing that is wrong.
    """
    name = fields.get("event_type")
    if name is None:
        raise BadRecordError(Reason.MISSING_FIELD, "event_type is missing")
    if not isinstance(name, str) or name not in BY_NAME:
        raise BadRecordError(
            Reason.UNKNOWN_EVENT_TYPE, f"event_type is none of {', '.join(BY_NAME)}"
        )
    try:
        return event_of(fields)
    except ValidationError as error:
        raise _bad_field(error) from None


def erased_profile(key: bytes | None) -> str:
    """The profile that a record on `profile-erasures` is about: its key; the value says nothing.

    Raises:
        BadRecordError: when the key can't be a profile's id.
    """
    if not key:
        raise BadRecordError(Reason.EMPTY, "the record has no key, which is to be the profile_id")
    try:
        profile_id = key.decode()
    except UnicodeDecodeError as bad:
        raise BadRecordError(Reason.BAD_UTF8, f"byte {bad.start} of the key is not UTF-8") from None
    if len(profile_id) > LONGEST_ID:
        raise BadRecordError(
            Reason.OUT_OF_RANGE, f"a key of {len(profile_id)} characters; at most {LONGEST_ID}"
        )
    return profile_id


def json_schema(topic: str) -> dict[str, Any]:
    """The JSON Schema of the values on `topic`, from the models that validate them."""
    return ADAPTERS[topic].json_schema()


def _bad_record(value: bytes, error: ValidationError) -> BadRecordError:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        try:
            value.decode()
        except UnicodeDecodeError as bad:
            return BadRecordError(Reason.BAD_UTF8, f"byte {bad.start} is not UTF-8")
        return BadRecordError(Reason.NOT_JSON, first["msg"])
    return _bad_field(error)


def _bad_field(error: ValidationError) -> BadRecordError:
    # One reason a record: the first complaint in field order is the one that is reported.
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return BadRecordError(
        _REASONS.get(first["type"], Reason.WRONG_TYPE), f"{where}: {first['msg']}".lstrip(": ")
    )
