"""Creates the product's topics on any Kafka and verifies those that exist."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from infra.exceptions import TopicCreationError, TopicMismatchError
from infra.patience import Patience
from stream.kafka import running
from stream.topics import TOPICS

if TYPE_CHECKING:
    from stream.settings import Settings

_VISIBLE_S: Final = 30.0
_POLL_S: Final = 0.05


async def create_topics(settings: Settings) -> None:
    """Creates every topic of `stream.topics.TOPICS` that is absent; waits until all have leaders.

    Existing topics are left as they are, so the call may be repeated.

    Raises:
        TopicMismatchError: when an existing topic has another number of partitions.
        TopicCreationError: when the broker refuses a topic.
        BrokerUnavailable: when no broker answers.
    """
    wanted = {settings.topic(topic.name): topic for topic in TOPICS}
    async with running(AIOKafkaAdminClient, settings) as admin:
        response = await admin.create_topics(
            [
                NewTopic(
                    name,
                    num_partitions=settings.topic_partitions,
                    replication_factor=settings.topic_replicas,
                    topic_configs=topic.config,
                )
                for name, topic in wanted.items()
            ]
        )
        for name, code, *message in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise TopicCreationError(f"Kafka refused topic {name}: {error.__name__} {message}")
        await _verify(admin, set(wanted), settings.topic_partitions)


async def _verify(admin: AIOKafkaAdminClient, names: set[str], partitions: int) -> None:
    patience = Patience(_VISIBLE_S)
    while True:
        found = {
            topic["topic"]: topic["partitions"]
            for topic in await admin.describe_topics(sorted(names))
            if not topic["error_code"]
        }
        for name, existing in found.items():
            if len(existing) != partitions:
                raise TopicMismatchError(
                    f"topic {name} has {len(existing)} partitions, not {partitions}; "
                    "set INTENT_TOPIC_PARTITIONS to that number, or INTENT_TOPIC_PREFIX to use "
                    "other topics (partitions can't be changed without moving profiles' state)"
                )
        if found.keys() == names and all(
            partition["leader"] >= 0 for existing in found.values() for partition in existing
        ):
            return
        if patience.over:
            raise TopicCreationError(
                f"topics {sorted(names - found.keys())} have no leader after "
                f"{patience.waited_s:.0f} s; "
                "look at the broker's log"
            )
        await asyncio.sleep(_POLL_S)
