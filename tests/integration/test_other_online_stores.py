"""The worker on online stores that aren't Redis: with a fence of their own, and without one."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import pytest

from features.reading.intents import Freshness
from features.reading.reader import IntentReader
from stream.kafka.admin import create_topics
from stream.kafka.erasure import request_erasure
from tests.online_stores import FencedSqliteOnlineStore, PlainSqliteOnlineStore, configured
from tests.workers import exit_code, http, lag, send, title_open, until, worker

if TYPE_CHECKING:
    from pathlib import Path

    from stream.settings import Settings


@pytest.fixture
def settings(isolated: Settings, kafka: str, served_model: str) -> Settings:
    config = isolated.model_copy(update={"model_version": served_model})
    asyncio.run(create_topics(config))
    return config


def stored_in(settings: Settings, home: Path, kind: type, **update: bool) -> Settings:
    name = f"{kind.__module__}.{kind.__qualname__}"
    file = configured(home, name, path=str(home / "online.db"))
    return settings.model_copy(update={"online_store": file, **update})


def freshness(settings: Settings, profile_id: str) -> Freshness:
    return IntentReader(settings).read([profile_id])[0].freshness


def test_a_worker_publishes_to_and_erases_from_somebody_s_own_fenced_store(
    settings: Settings, tmp_path: Path
) -> None:
    config = stored_in(settings, tmp_path, FencedSqliteOnlineStore)
    log = tmp_path / "worker.log"
    now_ms = round(time.time() * 1000)
    events = [title_open("mine", occurred_at_ms=now_ms + number) for number in range(2)]
    with worker(config, log, wait=True):
        send(config, events)
        until(lambda: lag(config) == 0, "no lag")
        row = IntentReader(config).read(["mine"])[0].row
        assert row is not None
        assert (row.last_event_id, row.sequence_no) == (events[-1]["event_id"], 2)
        asyncio.run(request_erasure(config, ["mine"]))
        until(lambda: freshness(config, "mine") is Freshness.ABSENT, "an erased profile")
        metrics = http(config, "/metrics")[1]
    assert "intentstream_store_fenced 1.0" in metrics
    assert re.search(r"intentstream_stale_rows_total\{.+\} 0.0", metrics)
    told = log.read_text()
    assert "no fence" not in told
    assert "is not noticed" in told


def test_a_worker_does_not_start_on_a_store_without_a_fence(
    settings: Settings, tmp_path: Path
) -> None:
    config = stored_in(settings, tmp_path, PlainSqliteOnlineStore)
    send(config, [title_open("kept")])
    log = tmp_path / "worker.log"
    with worker(config, log) as process:
        assert exit_code(process) != 0
    told = log.read_text()
    assert "UnfencedStoreError" in told
    assert "INTENT_UNFENCED_STORE=true accepts" in told
    assert lag(config) == 1


@pytest.mark.parametrize("is_first_look", [False, True], ids=["accepted", "sqlite"])
def test_a_worker_without_a_fence_says_so_and_counts_no_rows_as_stale(
    is_first_look: bool, settings: Settings, tmp_path: Path
) -> None:
    config = (
        settings.model_copy(update={"online_store": "sqlite"})
        if is_first_look
        else stored_in(settings, tmp_path, PlainSqliteOnlineStore, unfenced_store=True)
    )
    log = tmp_path / "worker.log"
    with worker(config, log, wait=True):
        send(config, [title_open("plain")])
        until(lambda: lag(config) == 0, "no lag")
        metrics = http(config, "/metrics")[1]
    assert IntentReader(config).read(["plain"])[0].row is not None
    assert "no fence" in log.read_text()
    assert "intentstream_store_fenced 0.0" in metrics
    assert "intentstream_published_rows_total 1.0" in metrics
    assert not re.search(r"^intentstream_stale_rows_total", metrics, re.MULTILINE)
