"""The bridge between another's topic and ours, on a real Kafka."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from os import environ
from typing import TYPE_CHECKING

import orjson
import pytest

from infra.local.programs import worker_environment
from intentstream.bridge.service import run_bridge
from stream.exceptions import InvalidSettingsError, TopicsMissingError
from stream.kafka.partitioners import partition_of
from tests.bridges import (
    bridge,
    bridged,
    dead_letters,
    heartbeat,
    ids_of,
    prepared,
    send,
    until_bridged,
)
from tests.workers import exit_code, http

if TYPE_CHECKING:
    from pathlib import Path

    from stream.settings import Settings

SEGMENT = {
    "bridge_adapter": "segment",
    "bridge_options": {"browse": {"Title Viewed": "title_open"}},
}


@pytest.mark.usefixtures("kafka")
def test_records_of_a_profile_go_out_in_their_order_where_our_producers_put_them(
    isolated: Settings, tmp_path: Path
) -> None:
    settings = prepared(isolated, **SEGMENT)
    profiles = [f"member-{n}" for n in range(7)]
    send(settings, [heartbeat(profile, n) for n in range(60) for profile in profiles])
    with bridge(settings, tmp_path / "bridge.log"):
        until_bridged(settings)
    found = bridged(settings)
    for profile in profiles:
        assert ids_of(found, profile) == [f"{profile}-{n}" for n in range(60)]
    for one in found:
        assert one.key.decode() == orjson.loads(one.value)["profile_id"]
        assert one.partition == partition_of(one.key, "murmur2", settings.topic_partitions)


@pytest.mark.usefixtures("kafka")
def test_bad_records_are_dead_letters_with_their_reason_and_the_others_go_on(
    isolated: Settings, tmp_path: Path
) -> None:
    settings = prepared(isolated, **SEGMENT)
    broken = (b"member-1", b'{"event": "Video Content')
    timeless = heartbeat("member-1", 2, timestamp=None)
    advertisement = heartbeat("member-1", 3, event="Video Ad Playing")
    browsed = heartbeat("member-1", 4, event="Title Viewed")
    tombstone = (b"member-1", None)
    given = [heartbeat("member-1", 1), broken, timeless, advertisement, tombstone, browsed]
    send(settings, given)
    with bridge(settings, tmp_path / "bridge.log"):
        until_bridged(settings)
        told = http(settings, "/metrics")[1]
    assert ids_of(bridged(settings), "member-1") == ["member-1-1", "member-1-4"]
    first, second = dead_letters(settings)
    assert (first.key, first.value) == broken
    assert (second.key, second.value) == timeless
    headers = {name: value.decode() for name, value in second.headers}
    assert headers["intent.reason"] == "missing_field"
    assert headers["__connect.errors.topic"] == settings.bridge_topic
    assert "timestamp is missing" in headers["__connect.errors.exception.message"]
    assert 'intentstream_bridge_records_total{outcome="bridged"} 2.0' in told
    assert 'intentstream_bridge_passed_over_total{why="advertisement"} 1.0' in told

    listed = subprocess.run(
        [sys.executable, "-m", "intentstream", "dlq", "list", "--json"],
        env={**environ, **worker_environment(settings)},
        capture_output=True,
        text=True,
        check=True,
    )
    reasons = [json.loads(line)["reason"] for line in listed.stdout.splitlines()]
    assert reasons == ["not_json", "missing_field"]


@pytest.mark.usefixtures("kafka")
def test_a_bridge_that_is_terminated_ends_well_and_the_next_goes_on_behind_it(
    isolated: Settings, tmp_path: Path
) -> None:
    settings = prepared(isolated, **SEGMENT)
    send(settings, [heartbeat("member-1", n) for n in range(5)])
    with bridge(settings, tmp_path / "bridge.log") as process:
        until_bridged(settings)
        process.terminate()
        assert exit_code(process) == 0
    send(settings, [heartbeat("member-1", n) for n in range(5, 8)])
    with bridge(settings, tmp_path / "bridge.log"):
        until_bridged(settings)
    assert len(bridged(settings)) == 8


@pytest.mark.usefixtures("kafka")
def test_two_bridges_share_the_partitions(isolated: Settings, tmp_path: Path) -> None:
    settings = prepared(isolated, **SEGMENT)
    other = settings.model_copy(update={"bridge_port": 0})
    with bridge(settings, tmp_path / "bridge.log"):
        send(settings, [heartbeat(f"member-{n % 5}", n) for n in range(100)])
        with bridge(other, tmp_path / "other.log"):
            send(settings, [heartbeat(f"member-{n % 5}", n) for n in range(100, 200)])
            until_bridged(settings)
        send(settings, [heartbeat(f"member-{n % 5}", n) for n in range(200, 300)])
        until_bridged(settings)
    found = bridged(settings)
    for profile in range(5):
        assert ids_of(found, f"member-{profile}") == [
            f"member-{profile}-{n}" for n in range(300) if n % 5 == profile
        ]


@pytest.mark.usefixtures("kafka")
@pytest.mark.parametrize("topic", ["", "{prefix}playback-events"])
def test_a_topic_of_ours_or_none_is_refused(isolated: Settings, topic: str) -> None:
    named = topic.format(prefix=isolated.topic_prefix)
    with pytest.raises(InvalidSettingsError, match="must name a topic of theirs"):
        asyncio.run(run_bridge(isolated.model_copy(update={"bridge_topic": named})))


@pytest.mark.usefixtures("kafka")
def test_a_topic_that_is_not_there_is_told(isolated: Settings) -> None:
    with pytest.raises(TopicsMissingError, match="nowhere"):
        asyncio.run(run_bridge(isolated.model_copy(update={"bridge_topic": "nowhere"})))
