"""Creates the product's topics on any Kafka, verifies those that exist, and mends them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from stream.exceptions import TopicCreationError, TopicMismatchError
from stream.kafka.connection import running
from stream.kafka.preflight import check_configs, describe_topics
from stream.kafka.topic_rules import broken
from stream.kafka.topology import begin_changelog, settle_topology
from stream.patience import Patience

if TYPE_CHECKING:
    from stream.kafka.topic_rules import Described
    from stream.settings import Settings

_VISIBLE_S: Final = 30.0
_POLL_S: Final = 0.05


async def create_topics(settings: Settings, *, begin_anew: bool = False) -> None:
    """Creates every topic of the product that is absent; waits until all have leaders.

    Existing topics are left as they are, so the call may be repeated. How many partitions they have
    is remembered, for workers to go by.

    Args:
        settings: where Kafka is, the topics' prefix, partitions and replicas.
        begin_anew: take a changelog that was made anew, without the states that stood in it.

    Raises:
        TopicMismatchError: when an existing topic has another number of partitions; none is created
            then.
        TopicsMisconfiguredError: when an existing topic would lose records, or take none.
        PartitionsChangedError: when states have to be moved to other partitions first.
        ChangelogLostError: when the changelog was made anew.
        TopicCreationError: when the broker refuses a topic.
        BrokerUnavailableError: when no broker answers.
    """
    async with running(AIOKafkaAdminClient, settings) as admin:
        described = await describe_topics(admin, settings)
        _check_partitions({one.name: one.partitions for one in described}, settings)
        absent = [one for one in described if not one.partitions]
        if absent:
            await _create(admin, absent, settings)
            await _verify(admin, {one.name for one in described}, settings)
            described = await describe_topics(admin, settings)
        check_configs(described, settings)
    if begin_anew:
        await begin_changelog(settings)
    await settle_topology(settings, settings.topic_partitions)


async def mend_topics(settings: Settings) -> list[str]:
    """Sets what existing topics must have by `topic_rules`; their other overrides stay.

    Returns:
        What was set, a line for each entry.

    Raises:
        TopicCreationError: when the broker refuses an entry.
        BrokerUnavailableError: when no broker answers.
    """
    told, resources = [], []
    async with running(AIOKafkaAdminClient, settings) as admin:
        for one in await describe_topics(admin, settings):
            rules = broken(one, settings)
            if rules:
                # The request replaces all that is set on the topic.
                wanted = {**one.overrides, **{rule.entry: rule.wanted for rule in rules}}
                resources.append(ConfigResource(ConfigResourceType.TOPIC, one.name, wanted))
                told += [f"{one.name}: {rule.entry}={rule.wanted}" for rule in rules]
        for answer in await admin.alter_configs(resources) if resources else ():
            for code, message, _, name in answer.resources:
                if code:
                    raise TopicCreationError(
                        f"Kafka refused to mend topic {name}: {for_code(code).__name__} {message}"
                    )
    return told


async def _create(admin: Any, absent: list[Described], settings: Settings) -> None:
    response = await admin.create_topics(
        [
            NewTopic(
                one.name,
                num_partitions=settings.topic_partitions,
                replication_factor=settings.topic_replicas,
                topic_configs=one.topic.config,
            )
            for one in absent
        ]
    )
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise TopicCreationError(f"Kafka refused topic {name}: {error.__name__} {message}")


def _check_partitions(found: dict[str, int], settings: Settings) -> None:
    for name, partitions in found.items():
        if partitions not in (0, settings.topic_partitions):
            raise TopicMismatchError(
                f"topic {name} has {partitions} partitions, INTENT_TOPIC_PARTITIONS is "
                f"{settings.topic_partitions}; set it to {partitions}, or INTENT_TOPIC_PREFIX to "
                "use other topics; or stop all workers and have `intentstream repartition COUNT` "
                "add partitions and move states to them (docs/partitions.md)"
            )


async def _verify(admin: Any, names: set[str], settings: Settings) -> None:
    patience = Patience(_VISIBLE_S)
    while True:
        found = {
            topic["topic"]: topic["partitions"]
            for topic in await admin.describe_topics(sorted(names))
            if not topic["error_code"]
        }
        _check_partitions({name: len(existing) for name, existing in found.items()}, settings)
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
