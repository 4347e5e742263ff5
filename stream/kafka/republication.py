"""Ask for profiles to be published again: records on `profile-republications`.

The worker that has a profile's state scores it anew and writes the row; a partition without the
state passes over the request. So a request for one profile goes to all partitions, whatever
partitioner placed the profile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from aiokafka import AIOKafkaProducer, TopicPartition

from stream.domain import topics
from stream.domain.events import erased_profile
from stream.exceptions import TopicsMissingError
from stream.kafka.changelog import Changelog, Whereabouts
from stream.kafka.connection import answering, partitions_of, running
from stream.settings import KafkaSettings

_PORTION_S: Final = 0.1


async def request_republication(settings: KafkaSettings, profile_ids: Iterable[str]) -> int:
    """Ask for profiles to be published again; return how many, once the broker has all requests.

    Raises:
        BadRecordError: when something isn't the id of a profile; nothing is asked for then.
        TopicsMissingError: when the topic of requests has not been made.
        BrokerUnavailableError: when Kafka does not take the requests; some may have been taken.
    """
    keys = [profile_id.encode() for profile_id in profile_ids]
    for key in keys:
        erased_profile(key)
    places = await _places(settings, topics.PROFILE_REPUBLICATIONS)
    async with running(AIOKafkaProducer, settings, enable_idempotence=True) as producer:
        for key in keys:
            async with answering(settings):
                for place in places:
                    await producer.send_and_wait(place.topic, key=key, partition=place.partition)
    return len(keys)


async def all_profiles(settings: KafkaSettings) -> list[tuple[bytes, int]]:
    """The keys of all profiles that have a state, each with its partition, from the changelog.

    Raises:
        TopicsMissingError: when the changelog has not been made.
        BrokerUnavailableError: when Kafka does not answer.
    """
    await _places(settings, topics.SESSIONS_CHANGELOG)
    found = Whereabouts()
    async with Changelog.of(settings) as changelog:
        async for record in changelog.read():
            found.take(record.key, record.partition, is_gone=record.value is None)
    return list(found.placed())


async def request_all(
    settings: KafkaSettings,
    profiles: Sequence[tuple[bytes, int]],
    *,
    per_s: float,
    advance: Callable[[int], None],
) -> None:
    """Ask for these profiles, each on its partition, at a steady rate.

    Args:
        settings: where Kafka is.
        profiles: what `all_profiles` found.
        per_s: requests a second.
        advance: told how many the broker has taken so far.

    Raises:
        BrokerUnavailableError: when Kafka does not take the requests; some may have been taken.
    """
    topic = settings.topic(topics.PROFILE_REPUBLICATIONS)
    portion = max(round(per_s * _PORTION_S), 1)
    async with running(AIOKafkaProducer, settings, enable_idempotence=True) as producer:
        for start in range(0, len(profiles), portion):
            some = profiles[start : start + portion]
            async with answering(settings):
                sent = [
                    await producer.send(topic, key=key, partition=partition)
                    for key, partition in some
                ]
                await asyncio.gather(*sent)
            advance(start + len(some))
            await asyncio.sleep(len(some) / per_s)


async def _places(settings: KafkaSettings, name: str) -> Sequence[TopicPartition]:
    places = await partitions_of(settings, settings.topic(name))
    if not places:
        raise TopicsMissingError(
            f"no such topic: {settings.topic(name)}; `intentstream topics` makes it"
        )
    return places
