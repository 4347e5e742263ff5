"""Read dead letters, and send them to where they came from once their cause is mended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from stream import topics
from stream.deadletters import CONNECT, CUT_HEADER, REASON_HEADER
from stream.kafka import answering, partitions_of, running
from stream.settings import Settings

DEAD_LETTER_TOPICS: Final = (topics.PLAYBACK_DLQ, topics.BROWSE_DLQ, topics.ERASURES_DLQ)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter: where it stands, the record as it came, and why it was turned away."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    """The record's own, without those that tell of the error."""
    source_topic: str
    reason: str
    message: str

    def to_json(self) -> dict[str, Any]:
        """All but the headers, keys and values as text."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp_ms": self.timestamp_ms,
            "key": _text(self.key),
            "value": _text(self.value),
            "source_topic": self.source_topic,
            "reason": self.reason,
            "message": self.message,
        }


async def read_dead_letters(
    settings: Settings, reason: str | None = None
) -> AsyncIterator[DeadLetter]:
    """All dead letters that stand on the topics now, by topic and partition, oldest first.

    Args:
        settings: where Kafka is.
        reason: only those turned away for this reason.

    Raises:
        BrokerUnavailable: when Kafka does not answer.
    """
    places = await partitions_of(settings, *map(settings.topic, DEAD_LETTER_TOPICS))
    async with running(AIOKafkaConsumer, settings) as consumer:
        for place, end in (await consumer.end_offsets(places)).items():
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            while await consumer.position(place) < end:
                async with answering(settings):
                    record = await consumer.getone()
                letter = _dead_letter(record)
                if reason in (None, letter.reason):
                    yield letter


async def print_dead_letters(
    settings: Settings, *, reason: str | None, limit: int, as_json: bool
) -> None:
    """Print the first `limit` dead letters as a table, or as JSON, one object a line.

    Raises:
        BrokerUnavailable: when Kafka does not answer.
    """
    table = Table("topic", "partition", "offset", "key", "reason", "message")
    shown = 0
    async for letter in read_dead_letters(settings, reason):
        if shown == limit:
            break
        shown += 1
        if as_json:
            print(orjson.dumps(letter.to_json()).decode())
        else:
            place = (letter.topic, str(letter.partition), str(letter.offset))
            table.add_row(*place, _text(letter.key), letter.reason, letter.message)
    if not as_json:
        Console().print(table if shown else "No dead letters.")


async def replay_dead_letters(settings: Settings, reason: str | None = None) -> int:
    """Send dead letters to the topics that they came from, as they came; return how many.

    They stay on the dead-letter topic. Sending them twice does no harm: an event that was taken in
    before changes nothing. What was too large to be kept whole is passed over.

    Raises:
        BrokerUnavailable: when Kafka does not take them.
    """
    sent = 0
    async with running(AIOKafkaProducer, settings, enable_idempotence=True) as producer:
        async for letter in read_dead_letters(settings, reason):
            if CUT_HEADER in dict(letter.headers):
                continue
            async with answering(settings):
                await producer.send_and_wait(
                    letter.source_topic, letter.value, key=letter.key, headers=letter.headers
                )
            sent += 1
    return sent


def _dead_letter(record: Any) -> DeadLetter:
    told = dict(record.headers)
    own = [
        (name, value)
        for name, value in record.headers
        if not name.startswith(CONNECT) and name != REASON_HEADER
    ]
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=own,
        source_topic=told[f"{CONNECT}topic"].decode(),
        reason=told[REASON_HEADER].decode(),
        message=told[f"{CONNECT}exception.message"].decode(),
    )


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="backslashreplace")
