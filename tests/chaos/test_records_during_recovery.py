"""Records that arrive while a worker recovers are neither lost nor taken for a gap in the log."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests.workers import lag, online, send, title_open, until, worker

PROFILES = [f"member-{n}" for n in range(50)]
EACH = 400
"""Enough that many still wait in the worker's queue when its recovery ends."""


def test_records_fetched_right_after_the_seek_are_not_lost(
    isolated: Settings, kafka: str, redis: str, served_model: str, tmp_path: Path
) -> None:
    settings = isolated.model_copy(
        update={"model_version": served_model, "instance_id": "worker-1"}
    )
    asyncio.run(create_topics(settings))
    log = tmp_path / "worker.log"
    # A first worker leaves state and committed offsets behind, so that the second recovers.
    send(settings, [title_open(profile) for profile in PROFILES])
    with worker(settings, log, wait=True):
        until(lambda: lag(settings) == 0, "no lag")
    now_ms = round(time.time() * 1000)
    waiting = [
        title_open(profile, occurred_at_ms=now_ms + n) for n in range(EACH) for profile in PROFILES
    ]
    send(settings, waiting)
    with worker(settings, log, "tests.chaos.slow_seeking_worker", wait=True):
        until(lambda: lag(settings) == 0, "no lag after the recovery")
    for profile, event in zip(PROFILES, waiting[-len(PROFILES) :], strict=True):
        assert online(settings, profile) == event["event_id"]
        assert online(settings, profile, "sequence_no") == EACH + 1


def test_the_first_records_of_a_group_are_not_lost(
    isolated: Settings, kafka: str, redis: str, served_model: str, tmp_path: Path
) -> None:
    settings = isolated.model_copy(update={"model_version": served_model})
    asyncio.run(create_topics(settings))
    first = [title_open(profile) for profile in PROFILES]
    send(settings, first)
    with worker(settings, tmp_path / "log", "tests.chaos.slow_seeking_worker", wait=True):
        until(lambda: lag(settings) == 0, "no lag of a group that had committed nothing")
    for profile, event in zip(PROFILES, first, strict=True):
        assert online(settings, profile) == event["event_id"]
