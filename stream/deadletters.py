"""How a record that can't be taken in is written to its dead-letter or late-events topic.

Both keep the original key, value, timestamp and headers. Dead letters add Kafka Connect's
`__connect.errors.*` headers (KIP-298), so that tools which know those can read them, and
`intent.reason`.
"""

from __future__ import annotations

from typing import Final, Protocol

from stream import topics
from stream.exceptions import BadRecord
from stream.outbox import Outgoing

REASON_HEADER: Final = "intent.reason"
CONNECT: Final = "__connect.errors."
_DLQ_OF: Final = {
    topics.PLAYBACK_EVENTS: topics.PLAYBACK_DLQ,
    topics.BROWSE_EVENTS: topics.BROWSE_DLQ,
    topics.PROFILE_ERASURES: topics.ERASURES_DLQ,
}


class Record(Protocol):
    """What is needed of a consumed record; Faust's and aiokafka's messages both have it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None


def dead_letter(topic: str, record: Record, timestamp_ms: int, error: BadRecord) -> Outgoing:
    """The dead letter of a bad record; `topic` is the record's, without the prefix."""
    errors = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "stage": "VALUE_CONVERTER",
        "exception.class.name": type(error).__name__,
        "exception.message": str(error),
    }
    return Outgoing(
        topic=_DLQ_OF[topic],
        partition=record.partition,
        key=record.key,
        value=record.value,
        headers=[
            *(record.headers or ()),
            *((CONNECT + name, text.encode()) for name, text in errors.items()),
            (REASON_HEADER, error.reason.encode()),
        ],
        timestamp_ms=timestamp_ms,
    )


def late_event(record: Record, timestamp_ms: int, reason: str) -> Outgoing:
    """A record that came too late to be taken in, as it goes to `late-events`.

    Args:
        record: the record.
        timestamp_ms: its broker time.
        reason: `behind_broker` (older than the allowed lateness) or `before_window` (its
            interaction has left the profile's full window).
    """
    place = (record.topic, str(record.partition), str(record.offset))
    names = ("topic", "partition", "offset")
    return Outgoing(
        topic=topics.LATE_EVENTS,
        partition=record.partition,
        key=record.key,
        value=record.value,
        headers=[
            *(record.headers or ()),
            *((CONNECT + name, text.encode()) for name, text in zip(names, place, strict=True)),
            (REASON_HEADER, reason.encode()),
        ],
        timestamp_ms=timestamp_ms,
    )
