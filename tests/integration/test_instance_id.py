"""Two processes of one `INTENT_INSTANCE_ID`: the older ends, and says why."""

from __future__ import annotations

import asyncio
from pathlib import Path

from infra.local.stack import Stack
from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests import sinks
from tests.conftest import isolate
from tests.unit.features.samples import SAMPLE
from tests.workers import http, lag, online, send, title_open, until, worker


def named(settings: Settings, home: Path) -> Settings:
    """The same group, name and topics, with ports and files of its own."""
    other = isolate(settings, home)
    ports = {"metrics_port": other.metrics_port, "sink_port": other.sink_port}
    return settings.model_copy(update={**ports, "data_dir": home})


def test_a_worker_whose_name_another_takes_ends_and_names_the_setting_but_not_at_a_restart(
    stack: Stack, kafka: str, redis: str, served_model: str, isolated: Settings, tmp_path: Path
) -> None:
    settings = isolated.model_copy(update={"model_version": served_model, "instance_id": "one"})
    asyncio.run(create_topics(settings))
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    twin = named(settings, tmp_path / "twin")
    with worker(settings, first, wait=True) as older:
        with worker(twin, second) as newer:
            until(lambda: older.poll() is not None, "the end of the older")
            assert older.returncode == 1
            told = first.read_text()
            assert "InstanceIdTakenError" in told
            assert f"consumer group {settings.consumer_group} as 'one'" in told
            assert "INTENT_INSTANCE_ID" in told
            until(lambda: http(twin, "/ready")[0] == 200, "a ready newer")
            event = title_open("member")
            send(settings, [event])
            until(lambda: online(settings, "member") == event["event_id"], "the event")
            until(lambda: lag(settings) == 0, "no lag")
            assert newer.poll() is None
        with worker(settings, second, wait=True) as restarted:
            event = title_open("member")
            send(settings, [event])
            until(lambda: online(settings, "member") == event["event_id"], "the event")
            until(lambda: lag(settings) == 0, "no lag")
            assert restarted.poll() is None
    assert "InstanceIdTakenError" not in second.read_text()


def test_a_sink_whose_name_another_takes_ends_and_names_the_setting_but_not_at_a_restart(
    kafka: str, isolated: Settings, tmp_path: Path
) -> None:
    settings = isolated.model_copy(update={"instance_id": "one", "sink_interval_s": 0.2})
    asyncio.run(create_topics(settings))
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    twin = named(settings, tmp_path / "twin")
    sink = ("intentstream", "sink")
    with worker(settings, first, *sink) as older:
        until(lambda: sinks.is_ready(settings) and "Joined group" in first.read_text(), "a member")
        with worker(twin, second, *sink) as newer:
            until(lambda: older.poll() is not None, "the end of the older")
            assert older.returncode == 1
            lines = first.read_text().splitlines()
            (told,) = [line for line in lines if line.startswith("InstanceIdTakenError: ")]
            assert f"consumer group {settings.consumer_group}-sink as 'one'" in told
            assert "INTENT_INSTANCE_ID" in told
            sinks.publish(settings, [SAMPLE])
            until(lambda: sinks.unlanded(settings) == 0, "the row landed")
            assert newer.poll() is None
        with worker(settings, second, *sink) as restarted:
            sinks.publish(settings, [SAMPLE])
            until(lambda: sinks.unlanded(settings) == 0, "the row landed")
            assert restarted.poll() is None
    assert "InstanceIdTakenError" not in second.read_text()
