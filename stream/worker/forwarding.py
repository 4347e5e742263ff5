"""Records of a profile whose state is in another partition, sent there.

After topics were given partitions the old ones hold events that nobody had taken in yet, and
producers send more until they know of the new ones (`metadata.max.age.ms`, five minutes by
default). Taking in is a join, so that it doesn't matter when a copy arrives; what is judged by the
broker's time, lateness and erasure, is judged by the original's, which the copy carries.
"""

from __future__ import annotations

from typing import Final

from stream.domain import topics
from stream.kafka.deadletters import Record
from stream.kafka.outbox import Outgoing

BROKER_TIME_HEADER: Final = "intent.broker_time_ms"
"""Broker time of the original, Unix milliseconds."""

_DIGITS: Final = 16

MOST_HEADER_BYTES: Final = 256 * 1024
"""Copied of the headers: what a producer compressed may unpack to more than a topic takes."""

_DECODED: Final = ("content-type", "ce_specversion", "ce_id", "ce_type", "ce_time")
_LONGEST_DECODED: Final = 1024
"""No attribute that means anything is longer."""


def forwarded(topic: str, record: Record, broker_ms: int, partition: int) -> Outgoing:
    """The copy of a record for the partition that its key belongs to.

    Args:
        topic: the record's, without the prefix; the copy goes to the same.
        record: one that was decoded.
        broker_ms: broker time of the original.
        partition: where to.
    """
    own = [one for one in record.headers or () if one[0] != BROKER_TIME_HEADER]
    if sum(len(name) + len(text or b"") for name, text in own) > MOST_HEADER_BYTES:
        own = [(name, text[:_LONGEST_DECODED]) for name, text in own if text and name in _DECODED]
    return Outgoing(
        topic=topic,
        partition=partition,
        key=record.key,
        # That of an erasure says nothing, and nobody looked at its size.
        value=None if topic == topics.PROFILE_ERASURES else record.value,
        headers=[*own, (BROKER_TIME_HEADER, str(broker_ms).encode())],
    )


def broker_time_ms(record: Record, own_ms: int) -> int:
    """Broker time of a record, of a copy that of its original.

    Args:
        record: the record.
        own_ms: its own broker time; no original can be newer.
    """
    for name, text in record.headers or ():
        if name == BROKER_TIME_HEADER and text and text.isdigit() and len(text) < _DIGITS:
            return min(int(text), own_ms)
    return own_ms
