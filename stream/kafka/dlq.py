"""Read dead letters, and send them to where they came from once their cause is mended."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from rich.table import Table

from stream.domain import topics
from stream.domain.events import printable
from stream.kafka.connection import answering, partitions_of, running
from stream.kafka.consumer import Consumer
from stream.kafka.deadletters import CONNECT, CUT_HEADER, REASON_HEADER
from stream.plain_text import PlainConsole, json_text, visible
from stream.settings import Settings


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter: where it stands, the record as it came, and why it was rejected."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    """The record's own, without those that tell of the error."""
    source_topic: str
    """Empty, like what follows, where something else than the worker put the record there."""
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


def dead_letter_topics(settings: Settings) -> list[str]:
    """The full names of the topics of dead letters, that of the bridge's topic among them."""
    names = [*map(settings.topic, topics.DEAD_LETTER_TOPICS)]
    if settings.bridge_topic:
        names.append(f"{settings.bridge_topic}.dlq")
    return names


async def read_dead_letters(
    settings: Settings, reason: str | None = None
) -> AsyncIterator[DeadLetter]:
    """All dead letters that stand on the topics now, by topic and partition, oldest first.

    Args:
        settings: where Kafka is; with a topic of the bridge's, its dead letters are among them.
        reason: only those rejected for this reason.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    places = await partitions_of(settings, *dead_letter_topics(settings))
    async with running(Consumer, settings) as consumer:
        for place, end in (await consumer.end_offsets(places)).items():
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            async for record in consumer.until({place: end}):
                letter = _dead_letter(record)
                if reason in (None, letter.reason):
                    yield letter


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The newest dead letters.

    Attributes:
        letters: they, the newest first.
        standing: how many stand on each topic, by its full name, as far as its offsets tell.
    """

    letters: list[DeadLetter]
    standing: dict[str, int]


async def newest_dead_letters(settings: Settings, most: int) -> DeadLetters:
    """About the `most` newest dead letters; of each partition an equal share.

    Args:
        settings: where Kafka is; with a topic of the bridge's, its dead letters are among them.
        most: how many at most; a partition's share is at least one.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    places = await partitions_of(settings, *dead_letter_topics(settings))
    letters: list[DeadLetter] = []
    standing: Counter[str] = Counter()
    async with running(Consumer, settings) as consumer, answering(settings):
        starts = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
        share = max(most // max(len(places), 1), 1)
        begins = {place: max(starts[place], ends[place] - share) for place in places}
        for place in places:
            standing[place.topic] += ends[place] - starts[place]
        wanted = {place: end for place, end in ends.items() if end > begins[place]}
        consumer.assign([*wanted])
        for place in wanted:
            consumer.seek(place, begins[place])
        if wanted:
            letters = [_dead_letter(record) async for record in consumer.until(wanted)]
    letters.sort(key=lambda one: one.timestamp_ms, reverse=True)
    return DeadLetters(letters[:most], dict(standing))


async def dead_letter_at(
    settings: Settings, topic: str, partition: int, offset: int
) -> DeadLetter | None:
    """The dead letter that stands there; None where none does, or not any more.

    Args:
        settings: where Kafka is.
        topic: its full name, one of `dead_letter_topics`.
        partition: its number.
        offset: where on it.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    if topic not in dead_letter_topics(settings):
        return None
    place = TopicPartition(topic, partition)
    if place not in await partitions_of(settings, topic):
        return None
    async with running(Consumer, settings) as consumer, answering(settings):
        start = (await consumer.beginning_offsets([place]))[place]
        end = (await consumer.end_offsets([place]))[place]
        if not start <= offset < end:
            return None
        consumer.assign([place])
        consumer.seek(place, offset)
        async for record in consumer.until({place: offset + 1}):
            return _dead_letter(record)
    return None


async def print_dead_letters(
    settings: Settings, *, reason: str | None, limit: int, as_json: bool
) -> None:
    """Print the first `limit` dead letters as a table, or as JSON, one object a line.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    table = Table("topic", "partition", "offset", "key", "reason", "message")
    shown = 0
    async for letter in read_dead_letters(settings, reason):
        if shown == limit:
            break
        shown += 1
        if as_json:
            print(json_text(letter.to_json()))
        else:
            place = (letter.topic, str(letter.partition), str(letter.offset))
            told = (_text(letter.key), letter.reason, letter.message)
            table.add_row(*place, *map(visible, told))
    if not as_json:
        PlainConsole().print(table if shown else "No dead letters.")


async def replay_dead_letters(settings: Settings, reason: str | None = None) -> int:
    """Send dead letters to the topics that they came from, as they came; return how many.

    They stay on the dead-letter topic. Sending them twice does no harm: an event that was taken in
    before changes nothing. What was too large to be kept whole is passed over, and what tells of no
    topic that it came from.

    Raises:
        BrokerUnavailableError: when Kafka does not take them.
    """
    sent = 0
    async with running(AIOKafkaProducer, settings, enable_idempotence=True) as producer:
        async for letter in read_dead_letters(settings, reason):
            if not letter.source_topic or CUT_HEADER in dict(letter.headers):
                continue
            async with answering(settings):
                await producer.send_and_wait(
                    letter.source_topic, letter.value, key=letter.key, headers=letter.headers
                )
            sent += 1
    return sent


def _dead_letter(record: Any) -> DeadLetter:
    told = {name: _text(value) for name, value in record.headers}
    own = [
        (printable(name), value)
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
        source_topic=told.get(f"{CONNECT}topic", ""),
        reason=told.get(REASON_HEADER, ""),
        message=told.get(f"{CONNECT}exception.message", ""),
    )


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="backslashreplace")
