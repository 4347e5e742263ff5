"""What a worker makes sure of before it starts: the topics are there, and co-partitioned."""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import TopicAuthorizationFailedError, for_code

from stream.exceptions import TopicsMissing
from stream.kafka import running
from stream.settings import Settings
from stream.topics import TOPICS


async def check_topics(settings: Settings) -> None:
    """Check that every topic of the product exists, all with the same number of partitions.

    A worker's changelog, dead letters and features go to the partition of their cause, and one
    worker must see all of a profile.

    Raises:
        TopicsMissing: when one is missing or has another number of partitions.
        BrokerRefused: when one may not be seen.
        BrokerUnavailable: when Kafka does not answer.
    """
    async with running(AIOKafkaAdminClient, settings) as admin:
        described = await admin.describe_topics([settings.topic(topic.name) for topic in TOPICS])
        for topic in described:
            if for_code(topic["error_code"]) is TopicAuthorizationFailedError:
                raise TopicAuthorizationFailedError(topic["topic"])
    partitions = {topic["topic"]: len(topic["partitions"]) for topic in described}
    missing = sorted(name for name, count in partitions.items() if not count)
    if missing:
        raise TopicsMissing(
            f"no such topics: {', '.join(missing)}; `intentstream topics` makes them"
        )
    if len(set(partitions.values())) > 1:
        raise TopicsMissing(
            f"topics with different numbers of partitions: {partitions}; make them equal, because "
            "what an event causes goes to the event's partition"
        )
