"""What a process makes sure of before it starts: the topics are there, and lose nothing."""

from __future__ import annotations

import logging
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAuthorizationFailedError, for_code

from stream.domain.topics import TOPICS
from stream.exceptions import TopicsMisconfiguredError, TopicsMissingError
from stream.kafka.connection import running
from stream.kafka.topic_rules import Described, broken, unwritable, worries
from stream.settings import Settings

_log = logging.getLogger(__name__)
_SET_ON_TOPIC = 1


async def check_topics(settings: Settings) -> int:
    """Check that every topic of the product exists, all with equally many partitions, and is sound.

    A worker's changelog, dead letters and features go to the partition of their cause, and one
    worker must see all of a profile. What a topic's configuration must be
    `stream.kafka.topic_rules` says; what may be meant as it is, is logged.

    Returns:
        How many partitions each of them has.

    Raises:
        TopicsMissingError: when one is missing or has another number of partitions.
        TopicsMisconfiguredError: when one would lose what it is given, or take nothing.
        BrokerRefusedError: when one may not be seen.
        BrokerUnavailableError: when Kafka does not answer.
    """
    async with running(AIOKafkaAdminClient, settings) as admin:
        described = await describe_topics(admin, settings)
    missing = sorted(one.name for one in described if not one.partitions)
    if missing:
        raise TopicsMissingError(
            f"no such topics: {', '.join(missing)}; `intentstream topics` makes them"
        )
    counts = {one.name: one.partitions for one in described}
    if len(set(counts.values())) > 1:
        raise TopicsMissingError(
            f"topics with different numbers of partitions: {counts}; they must be equal, because "
            "what an event causes goes to the event's partition: stop all workers, then "
            f"`intentstream repartition {max(counts.values())}` (docs/partitions.md)"
        )
    check_configs(described, settings)
    return described[0].partitions


def check_configs(described: list[Described], settings: Settings) -> None:
    """Check the configuration of topics, and log what may lose records.

    Raises:
        TopicsMisconfiguredError: when one would lose what it is given, or take nothing.
    """
    unseen = [one.name for one in described if one.config is None]
    if unseen:
        _log.warning(
            "The configuration of %s can't be checked, because the account lacks DescribeConfigs; "
            "docs/kafka.md says what it must be",
            ", ".join(unseen),
        )
    for one in described:
        for worry in worries(one, settings):
            _log.warning("%s", worry)
    problems = [why for one in described if (why := unwritable(one))]
    mendable = [
        f"{one.name}: {rule.entry} is {(one.config or {})[rule.entry]}, "
        f"must be {rule.wanted}: {rule.why}"
        for one in described
        for rule in broken(one, settings)
    ]
    if mendable:
        problems += [*mendable, "`intentstream topics --mend` sets what must be"]
    if problems:
        raise TopicsMisconfiguredError("\n".join(problems))


async def describe_topics(admin: Any, settings: Settings) -> list[Described]:
    """Every topic of ours as Kafka has it.

    Args:
        admin: a started admin client of aiokafka's.
        settings: the topics' prefix.

    Raises:
        TopicAuthorizationFailedError: when one may not be seen.
    """
    ours = {settings.topic(topic.name): topic for topic in TOPICS}
    partitions: dict[str, list[Any]] = {}
    for topic in await admin.describe_topics(list(ours)):
        if for_code(topic["error_code"]) is TopicAuthorizationFailedError:
            raise TopicAuthorizationFailedError(topic["topic"])
        partitions[topic["topic"]] = topic["partitions"]
    there = [name for name in ours if partitions.get(name)]
    configs = await _configs(admin, there) if there else {}
    return [
        Described(
            topic,
            name,
            len(partitions.get(name, ())),
            min((len(one["replicas"]) for one in partitions.get(name, ())), default=0),
            *configs.get(name, (None,)),
        )
        for name, topic in ours.items()
    ]


async def _configs(admin: Any, names: list[str]) -> dict[str, tuple[dict[str, str], ...]]:
    """Configuration in force, and of it what is set on the topic, of those that may be seen."""
    configs: dict[str, tuple[dict[str, str], ...]] = {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    for answer in await admin.describe_configs(resources):
        for code, message, _, name, entries in answer.resources:
            error = for_code(code)
            if error is TopicAuthorizationFailedError:
                continue
            if code:
                raise error(f"{name}: {message}")
            values = {entry: value for entry, value, *_ in entries}
            set_here = {
                entry: values[entry] for entry, *rest in entries if rest[2] == _SET_ON_TOPIC
            }
            configs[name] = (values, set_here)
    return configs
