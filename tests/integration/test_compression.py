"""Batches of every codec that Kafka knows, through the worker, the sink and the commands."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Final

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.local.stack import Stack
from stream.domain import topics
from stream.kafka.admin import create_topics
from stream.kafka.connection import running
from stream.kafka.dlq import read_dead_letters
from stream.settings import Settings
from tests.conftest import isolate
from tests.sinks import landed, sink, unlanded
from tests.workers import lag, online, send, title_open, until, worker

_CODECS: Final = ("gzip", "snappy", "lz4", "zstd")
_WRITTEN: Final = (topics.SESSIONS_CHANGELOG, topics.INTENT_FEATURES, topics.BROWSE_DLQ)
"""What the worker writes in the course of the test."""

_HEADER: Final = struct.Struct(">qi4xb4xh")
"""Of a batch in a log: its first offset, its length from there on, its magic, its attributes."""


@pytest.fixture(scope="module")
def settings(
    stack: Stack,
    kafka: str,
    redis: str,
    served_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    config = isolate(stack.settings, tmp_path_factory.mktemp("compression"))
    config = config.model_copy(update={"model_version": served_model, "sink_interval_s": 0.2})
    asyncio.run(create_topics(config))
    return config


def codecs(stack: Stack, settings: Settings, topic: str) -> set[str]:
    """The codecs of a topic's batches, as they lie in the broker's log."""
    found = set()
    for segment in (stack.home / "kafka" / "data").glob(f"{settings.topic(topic)}-[0-9]*/*.log"):
        data, at = segment.read_bytes(), 0
        while at + _HEADER.size <= len(data):
            _, length, _, attributes = _HEADER.unpack_from(data, at)
            found.add(("none", *_CODECS)[attributes & 0b111])
            at += 12 + length
    return found


def test_batches_of_every_codec_become_features_rows_dead_letters_and_states(
    stack: Stack, settings: Settings, tmp_path: Path
) -> None:
    expected: dict[str, str] = {}

    async def produce(codec: str) -> None:
        async with running(
            AIOKafkaProducer, settings, compression_type=codec, linger_ms=50
        ) as producer:
            # Alone an event would be larger compressed, and is sent as it is.
            events = [title_open(f"{codec}-{number}") for number in range(40)]
            sent = [
                await producer.send(
                    settings.topic(topics.BROWSE_EVENTS),
                    orjson.dumps(event),
                    key=event["profile_id"].encode(),
                    partition=0,
                )
                for event in events
            ]
            await asyncio.gather(*sent)
            expected.update((event["profile_id"], event["event_id"]) for event in events)

    async def compress(codec: str) -> None:
        async with running(AIOKafkaAdminClient, settings) as admin:
            await admin.alter_configs(
                [
                    ConfigResource(
                        ConfigResourceType.TOPIC,
                        settings.topic(topic.name),
                        {**topic.config, "compression.type": codec},
                    )
                    for topic in topics.TOPICS
                ]
            )

    rounds = 0

    def we_write(codec: str) -> bool:
        nonlocal rounds
        rounds += 1
        event = title_open("member")
        send(settings, [event, (b"member", b"junk")])
        until(lambda: online(settings, "member") == event["event_id"], "the event in the features")
        until(lambda: lag(settings) == 0, "no lag")
        return all(codec in codecs(stack, settings, topic) for topic in _WRITTEN)

    with worker(settings, tmp_path / "worker.log", wait=True), sink(settings):
        for codec in _CODECS:
            asyncio.run(produce(codec))
        assert codecs(stack, settings, topics.BROWSE_EVENTS) == {*_CODECS}
        for codec in _CODECS:
            asyncio.run(compress(codec))
            until(lambda codec=codec: we_write(codec), f"what we write in {codec}")
        until(lambda: unlanded(settings) == 0, "all rows landed")
    for profile_id, event_id in expected.items():
        assert online(settings, profile_id) == event_id

    async def letters() -> int:
        return len([letter async for letter in read_dead_letters(settings)])

    assert asyncio.run(letters()) == rounds
    assert len(landed(settings)) == len(expected) + rounds
    with worker(settings, tmp_path / "restarted.log", wait=True):
        send(settings, [title_open("member")])
        until(lambda: online(settings, "member", "sequence_no") == rounds + 1, "the states of all")
