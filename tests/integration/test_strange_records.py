"""What producers put into a log beside whole, committed events: none of it stops the worker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from infra.local.stack import Stack
from stream.domain import topics
from stream.kafka.admin import create_topics
from stream.kafka.connection import client_options
from stream.kafka.deadletters import REASON_HEADER
from stream.kafka.dlq import read_dead_letters, replay_dead_letters
from stream.settings import Settings
from tests.conftest import isolate
from tests.raw import Raw, batch, produce
from tests.workers import http, lag, online, records, send, title_open, until, worker

HERE = [f"here-{n}" for n in range(8)]


@pytest.fixture(scope="module")
def settings(
    stack: Stack,
    kafka: str,
    redis: str,
    served_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """Settings of a worker that runs for all tests of this module."""
    home = tmp_path_factory.mktemp("worker")
    config = isolate(stack.settings, home).model_copy(update={"model_version": served_model})
    asyncio.run(create_topics(config))
    asyncio.run(abort(config, topics.SESSIONS_CHANGELOG))
    with worker(config, home / "worker.log", wait=True):
        yield config


async def abort(settings: Settings, name: str) -> None:
    """Leave nothing but an aborted transaction at the ends of a topic's logs."""
    options = client_options(settings)
    async with AIOKafkaProducer(**options, transactional_id=settings.consumer_group) as producer:
        await producer.begin_transaction()
        for partition in range(settings.topic_partitions):
            for _ in range(5):
                await producer.send(
                    settings.topic(name), b"aborted", key=b"aborted", partition=partition
                )
        await producer.flush()
        await producer.abort_transaction()


def open_records(settings: Settings) -> float:
    """Records behind open transactions, as the worker tells."""
    told = re.findall(r"^intentstream_open_transaction_records\{.*\} (\S+)", *page(settings))
    return sum(map(float, told))


def page(settings: Settings) -> tuple[str, re.RegexFlag]:
    return http(settings, "/metrics")[1], re.MULTILINE


async def send_all(producer: AIOKafkaProducer, settings: Settings, events: list[Any]) -> None:
    for event in events:
        key = event["profile_id"].encode()
        await producer.send(settings.topic(topics.BROWSE_EVENTS), orjson.dumps(event), key=key)
    await producer.flush()


def test_events_count_once_their_transaction_is_committed_and_never_if_it_is_aborted(
    settings: Settings,
) -> None:
    aborted = [title_open(profile) for profile in HERE]
    committed = [title_open(profile) for profile in HERE]
    behind = [title_open(f"behind-{n}") for n in range(8)]

    async def scene() -> None:
        options = client_options(settings)
        async with AIOKafkaProducer(**options, transactional_id=settings.consumer_group) as one:
            await one.begin_transaction()
            await send_all(one, settings, aborted)
            await one.abort_transaction()
            await one.begin_transaction()
            await send_all(one, settings, committed)
            # Nobody may read on behind an open transaction.
            await asyncio.to_thread(send, settings, behind)
            await asyncio.to_thread(until, lambda: open_records(settings) >= 16, "told")
            await asyncio.to_thread(until, lambda: lag(settings) == 0, "no lag before it")
            assert {online(settings, profile) for profile in HERE} == {None}
            await one.commit_transaction()

    asyncio.run(scene())
    until(lambda: lag(settings) == 0, "no lag, with markers at the logs' ends")
    until(lambda: open_records(settings) == 0, "no open transaction")
    for event in [*committed, *behind]:
        assert online(settings, event["profile_id"]) == event["event_id"]
        assert online(settings, event["profile_id"], "sequence_no") == 1


def test_an_aborted_transaction_at_a_log_s_end_is_no_lag(settings: Settings) -> None:
    asyncio.run(abort(settings, topics.BROWSE_EVENTS))
    until(lambda: lag(settings) == 0, "no lag, with aborted records at the logs' ends")


def test_a_header_whose_name_is_not_utf_8_is_a_dead_letter_among_its_neighbours(
    settings: Settings,
) -> None:
    topic = settings.topic(topics.BROWSE_EVENTS)
    events = [title_open("poisoned", title_id=f"title-{n}") for n in range(3)]
    before, poison, after = (Raw(b"poisoned", orjson.dumps(event)) for event in events)
    poison.headers[:] = [(b"trace", b"1"), (b"\xff\xfe", b"x"), (b"none", None)]
    data = batch([before, poison, after])
    assert asyncio.run(produce(settings, topic, 0, data)) == 0
    until(lambda: online(settings, "poisoned", "sequence_no") == 2, "both neighbours")
    until(lambda: lag(settings) == 0, "no lag")
    (letter,) = [one for one in records(settings, topics.BROWSE_DLQ) if one.key == b"poisoned"]
    assert letter.value == poison.value
    assert letter.headers[:3] == (("trace", b"1"), (r"\xff\xfe", b"x"), ("none", None))
    told = dict(letter.headers)
    assert told[REASON_HEADER] == b"bad_utf8"
    assert rb"\xff\xfe" in told["__connect.errors.exception.message"]
    assert told["__connect.errors.partition"] == b"0"
    sent = asyncio.run(replay_dead_letters(settings, "bad_utf8"))
    assert sent == 1
    until(lambda: online(settings, "poisoned", "sequence_no") == 3, "the dead letter, mended")


def test_what_strangers_leave_on_our_topics_among_dead_letters_is_shown(settings: Settings) -> None:
    stranger = batch([Raw(None, b"stranger", [(b"\xff", None)])])
    topic = settings.topic(topics.ERASURES_DLQ)
    assert asyncio.run(produce(settings, topic, 1, stranger)) == 0

    async def letters() -> list[Any]:
        return [letter async for letter in read_dead_letters(settings)]

    found = [one for one in asyncio.run(letters()) if one.value == b"stranger"]
    assert [(one.source_topic, one.headers) for one in found] == [("", [(r"\xff", None)])]
