"""Topics that would lose records are refused, and mended by the command that is told."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stream.domain import topics
from stream.exceptions import PartitionsChangedError, TopicsMisconfiguredError
from stream.kafka.admin import create_topics, mend_topics
from stream.kafka.connection import running
from stream.kafka.partitioners import partition_of
from stream.kafka.preflight import check_topics, describe_topics
from stream.kafka.topology import settle_topology
from stream.settings import Settings
from tests.changelogs import state, write_states
from tests.workers import worker


def configure(settings: Settings, configs: dict[str, dict[str, str]]) -> None:
    """Set these entries, and no others, on topics."""

    async def alter() -> None:
        async with running(AIOKafkaAdminClient, settings) as admin:
            await admin.alter_configs(
                [
                    ConfigResource(ConfigResourceType.TOPIC, settings.topic(name), config)
                    for name, config in configs.items()
                ]
            )

    asyncio.run(alter())


def overrides(settings: Settings, name: str) -> dict[str, str]:
    """What is set on a topic itself."""

    async def read() -> dict[str, str]:
        async with running(AIOKafkaAdminClient, settings) as admin:
            described = await describe_topics(admin, settings)
        (one,) = (one for one in described if one.topic.name == name)
        return dict(one.overrides)

    return asyncio.run(read())


def test_topics_that_lose_records_are_refused_until_they_are_mended(
    isolated: Settings, kafka: str, tmp_path: Path
) -> None:
    asyncio.run(create_topics(isolated))
    configure(
        isolated,
        {
            topics.SESSIONS_CHANGELOG: {"cleanup.policy": "compact,delete", "retention.ms": "5000"},
            topics.BROWSE_EVENTS: {"segment.ms": "60000"},
            topics.PLAYBACK_DLQ: {"cleanup.policy": "compact"},
        },
    )
    log = tmp_path / "worker.log"
    with worker(isolated, log) as process:
        assert process.wait(timeout=180) != 0
    told = log.read_text()
    assert "sessions-changelog: cleanup.policy is compact,delete, must be compact" in told
    assert "browse-events: message.timestamp.type is CreateTime, must be LogAppendTime" in told
    assert "playback-events.dlq: max.message.bytes is 1048588, must be 2097152" in told
    assert "`intentstream topics --mend`" in told

    assert len(asyncio.run(mend_topics(isolated))) == 5
    assert overrides(isolated, topics.SESSIONS_CHANGELOG) == {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": "3600000",
        "retention.ms": "5000",
    }
    assert overrides(isolated, topics.BROWSE_EVENTS) == {
        "message.timestamp.type": "LogAppendTime",
        "segment.ms": "60000",
    }
    assert asyncio.run(check_topics(isolated)) == isolated.topic_partitions
    assert asyncio.run(mend_topics(isolated)) == []


def test_a_topic_that_would_never_take_a_record_is_refused_and_not_mended(
    isolated: Settings, kafka: str
) -> None:
    asyncio.run(create_topics(isolated))
    configure(isolated, {topics.LATE_EVENTS: {"min.insync.replicas": "2"}})
    assert asyncio.run(mend_topics(isolated)) == []
    with pytest.raises(
        TopicsMisconfiguredError, match=r"late-events has 1 replicas.*kafka-configs\.sh"
    ):
        asyncio.run(check_topics(isolated))


def test_what_may_be_meant_as_it_is_is_a_warning(
    isolated: Settings, kafka: str, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(create_topics(isolated))
    config = {"message.timestamp.type": "LogAppendTime", "retention.ms": "60000"}
    configure(isolated, {topics.BROWSE_EVENTS: config})
    with caplog.at_level(logging.WARNING):
        asyncio.run(check_topics(isolated))
    (told,) = (record for record in caplog.records if record.name == "stream.kafka.preflight")
    assert "browse-events: retention.ms=60000" in told.getMessage()


def test_partitions_that_were_added_before_anybody_remembered_them_are_noticed(
    isolated: Settings, kafka: str
) -> None:
    wide = isolated.model_copy(update={"topic_partitions": 8})
    asyncio.run(create_topics(wide))

    async def forget() -> None:
        async with running(AIOKafkaProducer, wide) as producer:
            topic = wide.topic(topics.MODEL_RELEASES)
            await producer.send_and_wait(topic, key=b"intentstream.topology", partition=0)

    asyncio.run(forget())
    keys = [f"member-{number}".encode() for number in range(100)]
    write_states(
        wide, {(key, partition_of(key, "murmur2", 4)): state(key.decode(), [1]) for key in keys}
    )
    for _ in range(2):
        with pytest.raises(PartitionsChangedError, match="8 partitions, and states are where 4"):
            asyncio.run(settle_topology(wide, 8))
