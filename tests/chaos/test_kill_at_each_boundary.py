"""A worker killed at any boundary loses nothing, not even a profile's very last event."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Final

import pytest

from features.registry.store import apply
from stream.domain import codec, topics
from stream.kafka.admin import create_topics
from stream.kafka.erasure import request_erasure
from stream.settings import Settings
from tests.workers import exit_code, lag, online, records, send, title_open, until, worker

BOUNDARIES: Final = ("join", "save", "infer", "write", "publish", "announce")
"""After the state change, the changelog, the inference, the online write, before the announcement,
and before the acknowledgement."""

UNSETTLED: Final = ("infer", "save")
"""The changelog may be with the broker or not when the model has answered."""

PROFILE: Final = "member-1"


def reached(settings: Settings, event_id: str) -> dict[str, bool]:
    """Which effects of an event are there, by the boundary behind which they must be."""
    changelog = [record.value for record in records(settings, "sessions-changelog")]
    states = [codec.decode(value) for value in changelog if value is not None]
    rows = [record.value for record in records(settings, topics.INTENT_FEATURES)]
    return {
        "save": any(state.last_event_id == event_id for state in states),
        "write": online(settings, PROFILE) == event_id,
        "announce": any(f'"{event_id}"'.encode() in row for row in rows),
    }


@pytest.fixture
def settings(isolated: Settings, kafka: str, redis: str, served_model: str) -> Settings:
    asyncio.run(create_topics(isolated))
    apply(isolated)  # a worker that is killed at once registers nothing
    return isolated.model_copy(update={"instance_id": "worker-1", "model_version": served_model})


def test_the_last_event_survives_a_kill_at_every_boundary(
    settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    send(settings, [title_open(PROFILE)])
    for step in BOUNDARIES:
        last = title_open(PROFILE)
        send(settings, [last])
        # This worker first mends what the one before it left undone, in the same redelivered batch
        # or in one of its own, then dies at its own boundary.
        command = ("tests.chaos.crashing_worker", step, last["event_id"])
        with worker(settings, log, *command) as process:
            assert exit_code(process) == -signal.SIGKILL, log.read_text()[-3000:]
        for effect, is_there in reached(settings, last["event_id"]).items():
            if (step, effect) != UNSETTLED:
                behind = BOUNDARIES.index(step) >= BOUNDARIES.index(effect)
                assert is_there == behind, (step, effect)
        assert lag(settings) > 0, "acknowledged before its batch was through"

    with worker(settings, log):
        until(lambda: lag(settings) == 0, "no lag")
    assert online(settings, PROFILE) == last["event_id"]
    assert online(settings, PROFILE, "sequence_no") == len(BOUNDARIES) + 1


def test_an_erasure_survives_a_kill_before_the_store_forgets(
    settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    event = title_open(PROFILE)
    send(settings, [event])
    with worker(settings, log, wait=True):
        until(lambda: online(settings, PROFILE) == event["event_id"], "the event online")
    asyncio.run(request_erasure(settings, [PROFILE]))
    with worker(settings, log, "tests.chaos.crashing_worker", "save", PROFILE) as process:
        assert exit_code(process) == -signal.SIGKILL, log.read_text()[-3000:]
    assert online(settings, PROFILE) == event["event_id"]
    with worker(settings, log):
        until(lambda: lag(settings) == 0, "no lag")
    assert online(settings, PROFILE) is None
