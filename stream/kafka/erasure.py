"""Ask for profiles to be erased: a record on `profile-erasures` that the worker follows."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaProducer

from stream.domain import topics
from stream.domain.events import erased_profile
from stream.kafka.connection import answering, running
from stream.settings import KafkaSettings


async def request_erasure(settings: KafkaSettings, profile_ids: Iterable[str]) -> int:
    """Ask for profiles to be erased; return how many, once the broker has all requests.

    Asking again for a profile erases what it did since.

    Raises:
        BadRecordError: when something isn't the id of a profile; nothing is asked for then.
        BrokerUnavailableError: when Kafka does not take the requests; some may have been taken.
    """
    keys = [profile_id.encode() for profile_id in profile_ids]
    for key in keys:
        erased_profile(key)
    topic = settings.topic(topics.PROFILE_ERASURES)
    async with running(AIOKafkaProducer, settings, enable_idempotence=True) as producer:
        for key in keys:
            async with answering(settings):
                await producer.send_and_wait(topic, key=key)
    return len(keys)
