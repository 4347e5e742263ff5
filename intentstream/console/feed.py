"""Follows `intent-features` and the states' changelog as they are written, beside the worker.

The consumer belongs to no group and commits nothing, so no worker is ever given less for it. It
begins a little before the end: who was active last is there when the first page is opened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from intentstream.console.members import MOST_MEMBERS, Members
from stream.domain.topics import INTENT_FEATURES, SESSIONS_CHANGELOG
from stream.exceptions import BrokerError, BrokerUnavailableError
from stream.kafka.changelog import HEAD_KEY
from stream.kafka.connection import answering, partitions_of, running
from stream.kafka.consumer import Consumer
from stream.settings import KafkaSettings

_log = logging.getLogger(__name__)

_WAIT_MS: Final = 40
"""How long the broker may hold a fetch. aiokafka asks for what a partition has next when the fetch
before it has ended, so a record may have to wait for so long."""

_POLL_MS: Final = 1000
_MOST_RECORDS: Final = 500
_RETRY_S: Final = 2.0
_LOOK_S: Final = 20.0
_STRETCH: Final = 5_000
"""Records of a partition that are looked through at once for one profile's state."""


class Feed:
    """What is published, as it is published.

    Args:
        settings: where Kafka is.
        members: told of every record.
    """

    def __init__(self, settings: KafkaSettings, members: Members) -> None:
        self.members = members
        self.trouble = "the console hasn't reached Kafka yet"
        """Why nothing comes, empty while it does."""
        self._settings = settings
        self._features = settings.topic(INTENT_FEATURES)
        self._changelog = settings.topic(SESSIONS_CHANGELOG)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Self]:
        """Follow while the block runs, whether or not Kafka answers."""
        task = asyncio.create_task(self._follow_on())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def look_up_state(self, profile_id: str) -> None:
        """Find the state of a member that hasn't been active since the console looks.

        Goes through the profile's partition of the changelog from its end, stretch by stretch, by a
        client of its own, and gives up after some seconds: a very long changelog is not read.

        Raises:
            BrokerUnavailableError: when Kafka does not answer.
        """
        key = profile_id.encode()
        places = await partitions_of(self._settings, self._changelog)
        async with running(Consumer, self._settings) as consumer, answering(self._settings):
            starts = await consumer.beginning_offsets(places)
            ends = await consumer.end_offsets(places)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S / 2):
                    while any(ends[place] > starts[place] for place in places):
                        for place in places:
                            if state := await self._state_in(consumer, place, starts, ends, key):
                                self.members.take_state(key, state)
                                return

    async def _state_in(
        self,
        consumer: Consumer,
        place: TopicPartition,
        starts: dict[TopicPartition, int],
        ends: dict[TopicPartition, int],
        key: bytes,
    ) -> bytes | None:
        """The newest state of a key in the stretch before `ends`, which then ends before it."""
        begin, end = max(starts[place], ends[place] - _STRETCH), ends[place]
        ends[place] = begin
        found: bytes | None = None
        if begin < end:
            consumer.assign([place])
            consumer.seek(place, begin)
            async for record in consumer.until({place: end}):
                if record.key == key:
                    found = record.value
        return found

    async def _follow_on(self) -> None:
        while True:
            try:
                await self._follow()
                self.trouble = "the topics have other partitions than before"
            except (BrokerError, KafkaError) as error:
                self.trouble = str(error)
                _log.warning("The console doesn't see what is published: %s", error)
            await asyncio.sleep(_RETRY_S)

    async def _follow(self) -> None:
        """Follow until the topics' partitions change.

        Raises:
            BrokerUnavailableError: when Kafka does not answer.
        """
        topics = (self._features, self._changelog)
        places = await partitions_of(self._settings, *topics)
        if {place.topic for place in places} != {*topics}:
            raise BrokerUnavailableError(
                f"Kafka has no topic {' or '.join(topics)}; run `intentstream topics` once"
            )
        options = {"fetch_max_wait_ms": _WAIT_MS, "auto_offset_reset": "latest"}
        async with running(Consumer, self._settings, **options) as consumer:
            starts = await consumer.beginning_offsets(places)
            ends = await consumer.end_offsets(places)
            consumer.assign(places)
            back = MOST_MEMBERS * len(topics) // len(places)
            for place in places:
                consumer.seek(place, max(starts[place], ends[place] - back))
            self.trouble = ""
            while all(
                len(consumer.partitions_for_topic(topic) or ())
                in (0, sum(place.topic == topic for place in places))
                for topic in topics
            ):
                fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MOST_RECORDS)
                for place, records in fetched.items():
                    self._take(place.topic, records)
                    await asyncio.sleep(0)  # whoever looks on is told meanwhile

    def _take(self, topic: str, records: list[object]) -> None:
        for record in records:
            key, value = record.key, record.value  # type: ignore[attr-defined]
            if topic == self._features and key:
                self.members.take_row(key, value)
            elif key and key != HEAD_KEY:
                self.members.take_state(key, value)
