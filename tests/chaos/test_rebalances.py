"""Workers that come and go take partitions from each other; nothing is lost on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from infra.local.stack import Stack
from stream.kafka.admin import create_topics
from stream.kafka.connection import running
from stream.settings import Settings
from tests.conftest import isolate
from tests.workers import http, lag, online, send, title_open, until, worker

PROFILES = [f"member-{n}" for n in range(40)]


@pytest.fixture
def first(isolated: Settings, kafka: str, redis: str, served_model: str) -> Settings:
    """Settings of a worker; its topics exist."""
    settings = isolated.model_copy(update={"model_version": served_model, "batch_max_events": 64})
    asyncio.run(create_topics(settings))
    return settings


@pytest.fixture
def second(first: Settings, tmp_path: Path) -> Settings:
    """Settings of another worker of the same group."""
    shared = ("topic_prefix", "consumer_group", "redis_url", "feature_registry")
    home = tmp_path / "second"
    home.mkdir()
    return isolate(first, home).model_copy(update={name: getattr(first, name) for name in shared})


def play(settings: Settings, each: int) -> list[str]:
    """Send so many events of every profile; the ids of their last."""
    now_ms = round(time.time() * 1000)
    events = [
        title_open(profile, occurred_at_ms=now_ms + n) for n in range(each) for profile in PROFILES
    ]
    send(settings, events)
    return [str(event["event_id"]) for event in events[-len(PROFILES) :]]


def members(settings: Settings) -> int:
    """How many workers share the partitions; 0 while they are being shared out."""

    async def read() -> int:
        async with running(AIOKafkaAdminClient, settings) as admin:
            (answer,) = await admin.describe_consumer_groups([settings.consumer_group])
            ((_, _, state, _, _, found, *_),) = answer.groups
            return len(found) if state == "Stable" else 0

    return asyncio.run(read())


def test_a_second_worker_takes_over_and_nothing_is_lost(
    first: Settings, second: Settings, tmp_path: Path
) -> None:
    faust = ("faust", "-A", "stream.worker.app", "worker", "--loglevel", "info")
    with worker(first, tmp_path / "first.log", "tests.chaos.slow_seeking_worker", wait=True):
        play(first, 1)
        with worker(second, tmp_path / "second.log", *faust, wait=True):
            play(first, 1)
            until(lambda: lag(first) == 0, "no lag with two workers")
        last = play(first, 1)
        until(lambda: lag(first) == 0, "no lag after the second left")
    assert [online(first, profile) for profile in PROFILES] == last
    assert [online(first, profile, "sequence_no") for profile in PROFILES] == [3] * len(PROFILES)


def test_a_worker_that_the_model_holds_up_lets_go_of_its_partitions(
    first: Settings, second: Settings, stack: Stack, tmp_path: Path
) -> None:
    each = 75
    with worker(first, tmp_path / "first.log", wait=True):
        os.kill(stack.pid("triton"), signal.SIGSTOP)
        try:
            last = play(first, each)
            until(lambda: http(first, "/ready")[0] == 503, "a worker that is held")
            with worker(second, tmp_path / "second.log"):
                until(lambda: members(first) == 2, "two workers in the group")
                os.kill(stack.pid("triton"), signal.SIGCONT)
                until(lambda: lag(first) == 0, "no lag with two workers")
        finally:
            os.kill(stack.pid("triton"), signal.SIGCONT)
    assert [online(first, profile) for profile in PROFILES] == last
    assert [online(first, profile, "sequence_no") for profile in PROFILES] == [each] * len(PROFILES)
