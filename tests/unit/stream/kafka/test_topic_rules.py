"""What a topic's configuration must be, so that nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from stream.domain import topics
from stream.kafka.topic_rules import Described, broken, unwritable, worries
from stream.settings import Settings

SOUND: Final = {
    "cleanup.policy": "delete",
    "max.message.bytes": str(2 * 1024 * 1024),
    "message.timestamp.type": "LogAppendTime",
    "message.timestamp.before.max.ms": str((1 << 63) - 1),
    "min.compaction.lag.ms": "3600000",
    "delete.retention.ms": "86400000",
    "min.insync.replicas": "2",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
}


def described(name: str, **changed: str) -> Described:
    (topic,) = (topic for topic in topics.TOPICS if topic.name == name)
    policy = {"cleanup.policy": topic.config.get("cleanup.policy", "delete")}
    config = SOUND | policy | {entry.replace("_", "."): value for entry, value in changed.items()}
    return Described(topic, f"x-{name}", partitions=4, replicas=3, config=config)


@pytest.mark.parametrize("topic", topics.TOPICS)
def test_a_sound_topic_breaks_no_rule(topic: topics.Topic) -> None:
    sound = described(topic.name)
    assert broken(sound, Settings()) == []
    assert unwritable(sound) is None
    assert worries(sound, Settings()) == []


@pytest.mark.parametrize(
    ("name", "entry", "value", "wanted"),
    [
        (topics.SESSIONS_CHANGELOG, "cleanup.policy", "delete", "compact"),
        (topics.SESSIONS_CHANGELOG, "cleanup.policy", "compact,delete", "compact"),
        (topics.MODEL_RELEASES, "cleanup.policy", "delete,compact", "compact"),
        (topics.PLAYBACK_EVENTS, "cleanup.policy", "compact", "delete"),
        (topics.BROWSE_DLQ, "cleanup.policy", "compact,delete", "delete"),
        (topics.INTENT_FEATURES, "cleanup.policy", "compact", "delete"),
        (topics.BROWSE_EVENTS, "message.timestamp.type", "CreateTime", "LogAppendTime"),
        (topics.PROFILE_ERASURES, "message.timestamp.type", "CreateTime", "LogAppendTime"),
        (topics.ERASURES_DLQ, "max.message.bytes", "1048588", "2097152"),
        (topics.SESSIONS_CHANGELOG, "max.message.bytes", "100000", "524288"),
        (topics.SESSIONS_CHANGELOG, "min.compaction.lag.ms", "0", "3600000"),
        (topics.SESSIONS_CHANGELOG, "delete.retention.ms", "100", "3600000"),
        (
            topics.PLAYBACK_DLQ,
            "message.timestamp.before.max.ms",
            "86400000",
            "9223372036854775807",
        ),
    ],
)
def test_what_would_lose_records_is_told_with_a_value_that_does_not(
    name: str, entry: str, value: str, wanted: str
) -> None:
    (rule,) = broken(described(name, **{entry: value}), Settings())
    assert (rule.entry, rule.wanted) == (entry, wanted)
    assert rule.holds(wanted)


def test_larger_events_need_larger_records_where_they_are_copied_to() -> None:
    config = Settings(max_event_bytes=3 * 1024 * 1024)
    for name in (topics.PLAYBACK_EVENTS, topics.LATE_EVENTS):
        (rule,) = broken(described(name), config)
        assert rule.entry == "max.message.bytes"
        assert int(rule.wanted) > config.max_event_bytes


def test_a_topic_that_asks_for_more_replicas_than_it_has_takes_nothing() -> None:
    alone = replace(described(topics.SESSIONS_CHANGELOG), replicas=1)
    told = unwritable(alone)
    assert told is not None
    assert "--add-config min.insync.replicas=1" in told


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("unclean.leader.election.enable", "true"),
        ("min.insync.replicas", "1"),
        ("retention.ms", "3600000"),
        ("retention.bytes", "1000000"),
        ("retention.ms", "-1"),
    ],
)
def test_what_may_lose_records_is_worth_a_warning(entry: str, value: str) -> None:
    doubtful = described(topics.PLAYBACK_EVENTS, **{entry: value})
    (told,) = worries(doubtful, Settings())
    assert told.startswith(f"x-playback-events: {entry}={value}: ")
    assert broken(doubtful, Settings()) == []


def test_what_may_not_be_seen_is_not_judged() -> None:
    unseen = replace(described(topics.SESSIONS_CHANGELOG), config=None)
    assert broken(unseen, Settings()) == worries(unseen, Settings()) == []
    assert unwritable(unseen) is None
