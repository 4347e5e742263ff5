"""How a record that can't be taken in is written to its dead-letter or late-events topic.

Both keep the original key, value, timestamp and headers, as far as a topic takes them. Dead letters
add Kafka Connect's `__connect.errors.*` headers (KIP-298), so that tools which know those can read
them, and `intent.reason`.
"""

from __future__ import annotations

from typing import Final, Protocol

from stream.domain import topics
from stream.domain.events import printable
from stream.exceptions import BadRecordError
from stream.kafka.outbox import Outgoing

REASON_HEADER: Final = "intent.reason"
CUT_HEADER: Final = "intent.cut"
"""Names what was too large to be kept whole, and its bytes."""

_MOST_BYTES: Final = {"key": 64 * 1024, "value": 1024 * 1024, "headers": 256 * 1024}
"""Kept of each: a compressed record may unpack to more than a topic takes."""

CONNECT: Final = "__connect.errors."

_CLASS: Final = "BadRecord"
"""What dead letters have always said of their error, which readers may go by."""


class Record(Protocol):
    """What is needed of a consumed record; Faust's and aiokafka's messages both have it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None


def dead_letter(topic: str, record: Record, timestamp_ms: int, error: BadRecordError) -> Outgoing:
    """The dead letter of a bad record, for the topic `<topic>.dlq`.

    Args:
        topic: the record's, without the prefix of ours.
        record: the record.
        timestamp_ms: its time.
        error: why it is bad.
    """
    errors = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "stage": "VALUE_CONVERTER",
        "exception.class.name": _CLASS,
        "exception.message": str(error),
    }
    return _copy(f"{topic}.dlq", record, timestamp_ms, errors, error.reason)


def late_event(record: Record, timestamp_ms: int, reason: str) -> Outgoing:
    """A record that came too late to be taken in, as it goes to `late-events`.

    Args:
        record: the record.
        timestamp_ms: its broker time.
        reason: `behind_broker` (older than the allowed lateness) or `before_window` (not read
            before, and its interaction has left the profile's full window).
    """
    place = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
    }
    return _copy(topics.LATE_EVENTS, record, timestamp_ms, place, reason)


def _copy(
    topic: str, record: Record, timestamp_ms: int, told: dict[str, str], reason: str
) -> Outgoing:
    own = [(printable(name), text) for name, text in record.headers or ()]
    sizes = {
        "key": len(record.key or b""),
        "value": len(record.value or b""),
        "headers": sum(len(name) + len(text or b"") for name, text in own),
    }
    cut = {part: size for part, size in sizes.items() if size > _MOST_BYTES[part]}
    return Outgoing(
        topic=topic,
        partition=record.partition,
        key=record.key and record.key[: _MOST_BYTES["key"]],
        value=record.value and record.value[: _MOST_BYTES["value"]],
        headers=[
            *(own if "headers" not in cut else ()),
            *((CONNECT + name, text.encode()) for name, text in told.items()),
            (REASON_HEADER, reason.encode()),
            *((CUT_HEADER, f"{part} {size}".encode()) for part, size in cut.items()),
        ],
        timestamp_ms=timestamp_ms,
    )
