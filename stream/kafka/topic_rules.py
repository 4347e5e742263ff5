"""What a topic's configuration must be, or had better be, so that nothing is lost. Knows no client.

Names, defaults and meanings: https://kafka.apache.org/documentation/#topicconfigs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from stream.domain import topics
from stream.domain.topics import CONSUMED_TOPICS, DEAD_LETTER_TOPICS, Topic
from stream.settings import Settings

_DAY_S: Final = 86_400
_HOUR_MS: Final = 3_600_000
_FOR_EVER: Final = str((1 << 63) - 1)
_BATCH_BYTES: Final = 512 * 1024
"""Bytes that the outbox packs into one batch; a broker judges whole batches."""

_BESIDES_VALUE_BYTES: Final = 384 * 1024
"""Room for the key and the headers of a record that is copied."""

_OLDEST_S: Final = 400 * _DAY_S
"""How old what we write with a time of its own may be."""


@dataclass(frozen=True, slots=True)
class Described:
    """A topic as Kafka has it."""

    topic: Topic
    name: str
    """The topic's full name."""

    partitions: int
    """0 where there is no such topic."""

    replicas: int = 0
    """Replicas of the partition that has the fewest."""

    config: Mapping[str, str] | None = None
    """The configuration in force; None where the account may not see it."""

    overrides: Mapping[str, str] = field(default_factory=dict)
    """The part of it that was set on the topic itself."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one entry must be."""

    entry: str
    wanted: str
    """A value that will do."""

    holds: Callable[[str], bool]
    why: str


def _is(entry: str, wanted: str, why: str) -> Rule:
    return Rule(entry, wanted, lambda value: set(value.split(",")) == {wanted}, why)


def _at_least(entry: str, least: int, why: str, wanted: str = "") -> Rule:
    return Rule(entry, wanted or str(least), lambda value: int(value) >= least, why)


def rules_of(topic: Topic, settings: Settings) -> list[Rule]:
    """The rules that a topic breaks at the price of records."""
    policy = topic.config.get("cleanup.policy", "delete")
    rules = [
        _is("cleanup.policy", "compact", "retention would delete what is kept here for good")
        if policy == "compact"
        else _is("cleanup.policy", policy, "compaction would keep one record a profile"),
        _at_least(
            "max.message.bytes",
            _least_bytes(topic, settings),
            "Kafka would refuse what is written here",
        ),
    ]
    if topic.name in CONSUMED_TOPICS:
        rules.append(
            _is(
                "message.timestamp.type",
                "LogAppendTime",
                "what is late, erased or idle is judged by the broker's time",
            )
        )
    if topic.name == topics.SESSIONS_CHANGELOG:
        rules += [
            _at_least(
                "min.compaction.lag.ms",
                _HOUR_MS,
                "of states that two workers wrote, one would go before both are joined",
            ),
            _at_least(
                "delete.retention.ms",
                _HOUR_MS,
                "a worker that reads states back would miss that one is gone",
            ),
        ]
    if topic.name in (topics.SESSIONS_CHANGELOG, topics.LATE_EVENTS, *DEAD_LETTER_TOPICS):
        oldest_ms = 1000 * max(settings.idle_profile_s, _OLDEST_S)
        rules += [
            _at_least(entry, oldest_ms, "copies keep the time of what they copy", _FOR_EVER)
            # The second is the first one's name before Kafka 3.6.
            for entry in ("message.timestamp.before.max.ms", "message.timestamp.difference.max.ms")
        ]
    return rules


def _least_bytes(topic: Topic, settings: Settings) -> int:
    if topic.name in DEAD_LETTER_TOPICS:
        return int(topic.config["max.message.bytes"])
    if topic.name in (topics.LATE_EVENTS, *CONSUMED_TOPICS):
        return max(_BATCH_BYTES, settings.max_event_bytes + _BESIDES_VALUE_BYTES)
    return _BATCH_BYTES


def broken(described: Described, settings: Settings) -> list[Rule]:
    """The rules that a topic breaks and that its configuration alone can mend."""
    config = described.config or {}
    return [
        rule
        for rule in rules_of(described.topic, settings)
        # Brokers differ in what they know.
        if rule.entry in config and not rule.holds(config[rule.entry])
    ]


def unwritable(described: Described) -> str | None:
    """Why Kafka will never take a record of ours, as it asks for replicas that there aren't."""
    least = int((described.config or {}).get("min.insync.replicas", 1))
    if least <= described.replicas:
        return None
    return (
        f"{described.name} has {described.replicas} replicas, fewer than its min.insync.replicas="
        f"{least}, and takes nothing; give it more (kafka-reassign-partitions.sh) or ask for fewer "
        f"(kafka-configs.sh --alter --entity-type topics --entity-name {described.name} "
        f"--add-config min.insync.replicas={described.replicas})"
    )


def worries(described: Described, settings: Settings) -> list[str]:
    """What may lose records although it may be meant so, in words."""
    config, told = described.config or {}, []
    if described.replicas > 1:
        if config.get("unclean.leader.election.enable") == "true":
            told.append(
                "unclean.leader.election.enable=true: a replica that lags may become the leader, "
                "and what it lacks is lost"
            )
        if config.get("min.insync.replicas") == "1":
            told.append("min.insync.replicas=1: what one broker alone has is lost with it")
    if described.topic.name in (topics.INTENT_FEATURES, *CONSUMED_TOPICS):
        retention_ms = int(config.get("retention.ms", -1))
        if 0 <= retention_ms < _DAY_S * 1000:
            told.append(
                f"retention.ms={retention_ms}: records that wait for longer are lost, and a day "
                "without a consumer isn't rare"
            )
        if config.get("retention.bytes", "-1") != "-1":
            told.append(
                f"retention.bytes={config['retention.bytes']}: records that wait are lost once "
                "there are so many behind them"
            )
    if described.topic.name in topics.EVENT_TOPICS and "retention.ms" in config:
        retention_ms, idle_s = int(config["retention.ms"]), settings.idle_profile_s
        if idle_s and not 0 <= retention_ms <= idle_s * 1000:
            told.append(
                f"retention.ms={retention_ms}: events outlive INTENT_IDLE_PROFILE_S, so that those "
                "of an erased profile could come back"
            )
    return [f"{described.name}: {worry}" for worry in told]
