"""Kafka is away for a while: who asks is told, the log stays readable, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from infra.local.programs import worker_environment
from infra.local.stack import Stack
from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests import bridges, sinks
from tests.sinks import answer, keys, unlanded
from tests.workers import http, lag, online, send, title_open, until, worker

_COMMANDS: Final = (
    ("lag",),
    ("topics",),
    ("dlq", "list"),
    ("dlq", "replay"),
    ("erase", "somebody"),
    ("model", "status"),
    ("simulate", "--kafka", "--members", "2", "--days", "1"),
    ("sink",),
    ("worker",),
)
_PROFILES: Final = 50
_FILLED: Final = 500
"""Lines that a log may grow by while Kafka is away; it were thousands."""


def run(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command under these settings, at its end."""
    return subprocess.run(
        [sys.executable, "-m", "intentstream", *arguments],
        env={**os.environ, **worker_environment(settings)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_kafka_that_is_killed_under_load_is_told_once_and_nothing_is_lost(
    stack: Stack, kafka: str, redis: str, served_model: str, isolated: Settings, tmp_path: Path
) -> None:
    settings = isolated.model_copy(update={"model_version": served_model, "sink_interval_s": 0.2})
    asyncio.run(create_topics(settings))
    logs = [tmp_path / "worker.log", tmp_path / "sink.log"]
    events = [title_open(f"p-{number % _PROFILES}") for number in range(2_000)]
    with (
        worker(settings, logs[0], wait=True),
        worker(settings, logs[1], "intentstream", "sink"),
    ):
        until(lambda: sinks.is_ready(settings), "a ready sink")
        until(lambda: "kafka_consumergroup_lag{" in http(settings, "/metrics")[1], "a known lag")
        send(settings, events)
        os.kill(stack.pid("kafka"), signal.SIGKILL)
        stack.stop_program("kafka")
        try:
            for ask in (http, answer):
                until(lambda ask=ask: ask(settings, "/ready")[0] == 503, "a word that it is away")
                assert ask(settings, "/live")[0] == 200
                text = ask(settings, "/metrics")[1]
                assert "intentstream_kafka_up 0.0" in text
                assert "kafka_consumergroup_lag{" not in text
            before = [len(log.read_text().splitlines()) for log in logs]
            for command in _COMMANDS:
                done = run(settings, *command)
                assert done.returncode == 1, (command, done)
                assert "INTENT_KAFKA_BOOTSTRAP" in done.stderr, (command, done)
                if command[0] not in ("sink", "worker"):
                    assert len(done.stderr.splitlines()) == 1, (command, done)
            for log, lines in zip(logs, before, strict=True):
                assert len(log.read_text().splitlines()) < lines + _FILLED
            assert http(settings, "/live")[0] == 200
        finally:
            stack.start("kafka")
        until(lambda: http(settings, "/ready")[0] == 200, "a ready worker")
        until(lambda: sinks.is_ready(settings), "a ready sink")
        until(lambda: lag(settings) == 0, "no lag")
        for number in range(_PROFILES):
            assert online(settings, f"p-{number}", "sequence_no") == len(events) / _PROFILES
        until(lambda: unlanded(settings) == 0, "all rows landed")
        last = {(f"p-{number}", len(events) // _PROFILES) for number in range(_PROFILES)}
        assert {key[:2] for key in keys(settings)} >= last
    for log in logs:
        told = log.read_text()
        # A broker that has just started may be too busy to answer in time, once or twice more.
        assert 1 <= told.count("Not ready until it answers again") <= 3
        assert 1 <= told.count("Kafka answers again") <= 3


def test_a_bridge_whose_kafka_is_killed_holds_what_it_has_and_loses_nothing(
    stack: Stack, kafka: str, isolated: Settings, tmp_path: Path
) -> None:
    settings = bridges.prepared(isolated, bridge_adapter="segment")
    with bridges.bridge(settings, tmp_path / "bridge.log"):
        bridges.send(settings, [bridges.heartbeat(f"p-{n % 5}", n) for n in range(5_000)])
        os.kill(stack.pid("kafka"), signal.SIGKILL)
        stack.stop_program("kafka")
        try:
            until(lambda: http(settings, "/ready")[0] == 503, "a word that it is away")
            assert http(settings, "/live")[0] == 200
            assert "intentstream_kafka_up 0.0" in http(settings, "/metrics")[1]
        finally:
            stack.start("kafka")
        until(lambda: http(settings, "/ready")[0] == 200, "a ready bridge")
        bridges.until_bridged(settings)
    found = bridges.bridged(settings)
    for number in range(5):
        whole = [f"p-{number}-{n}" for n in range(number, 5_000, 5)]
        assert bridges.ids_of(found, f"p-{number}") == whole


@pytest.mark.parametrize("command", [("lag",), ("topics",)])
def test_a_command_does_not_wait_for_ever_for_a_kafka_that_takes_connections_and_is_silent(
    stack: Stack, kafka: str, isolated: Settings, command: tuple[str, ...]
) -> None:
    server = stack.pid("kafka")
    os.kill(server, signal.SIGSTOP)
    try:
        done = run(isolated, *command)
    finally:
        os.kill(server, signal.SIGCONT)
        # A broker that was silent for so long is fenced, until it is heard of again.
        until(lambda: asyncio.run(create_topics(isolated)) is None, "a Kafka that takes topics")
    assert done.returncode == 1
    assert "did not answer in time" in done.stderr
