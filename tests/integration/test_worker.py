"""The worker on real Kafka, Triton, Redis and Feast."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson
import pandas as pd
import pyarrow as pa
import pytest
import redis as redis_client
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import SecretStr

from features.definitions import intent_features
from features.offline.erasures import joined, notes
from features.online.titles import publish_titles
from features.reading.intents import Freshness
from features.reading.reader import IntentReader
from features.reading.rerank import MATCHES, Candidate, Order, Reranker
from features.registry.places import source_folder
from features.registry.store import open_store
from fm_intent.exported import exported_vectors
from infra.local.programs import worker_environment
from infra.local.stack import Stack
from stream.domain import topics
from stream.kafka.admin import create_topics
from stream.kafka.connection import running
from stream.settings import Settings
from tests.checkout import REPOSITORY
from tests.conftest import isolate
from tests.sinks import answer, landed, sink
from tests.workers import (
    ANSWER_S,
    exit_code,
    http,
    lag,
    online,
    records,
    send,
    title_open,
    until,
    worker,
)


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")  # no time may be read in the machine's own zone
        with worker(config, home / "worker.log", wait=True):
            yield config


def command(settings: Settings, *arguments: str) -> str:
    """What the command line prints under these settings."""
    environment = {**os.environ, **worker_environment(settings)}
    line = [sys.executable, "-m", "intentstream", *arguments]
    return subprocess.run(line, env=environment, check=True, capture_output=True, text=True).stdout


def told(settings: Settings, *arguments: str) -> list[Any]:
    """The JSON that a command prints, line by line."""
    return [orjson.loads(line) for line in command(settings, *arguments).splitlines()]


def reason(record: object) -> str:
    return dict(record.headers)["intent.reason"].decode()  # type: ignore[attr-defined]


def test_an_event_becomes_features_that_feast_reads_back(
    settings: Settings, served_model: str
) -> None:
    event = title_open("reader")
    send(settings, [event])
    until(lambda: online(settings, "reader") == event["event_id"], "the event in the features")
    assert online(settings, "reader", "session_length") == 1
    assert online(settings, "reader", "model_version") == served_model
    assert len(online(settings, "reader", "next_title_ids")) == 20
    assert sum(online(settings, "reader", "action_probs")) == pytest.approx(1, abs=1e-4)


def test_the_first_event_and_the_first_read_of_the_readme_work(settings: Settings) -> None:
    samples = re.findall(
        r"^```python\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.M | re.S
    )
    topic = settings.topic(topics.PLAYBACK_EVENTS)
    event, read = (
        sample.replace("127.0.0.1:9092", settings.kafka_bootstrap)
        .replace("playback-events", topic)
        .replace('"me"', '"who follows the readme"')
        .replace('b"me"', 'b"who follows the readme"')
        for sample in samples
    )
    environment = {**os.environ, **worker_environment(settings)}

    def run(program: str) -> str:
        line = [sys.executable, "-c", program]
        done = subprocess.run(line, env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    run(event)
    until(lambda: run(read).startswith("fresh"), "what it read")
    assert re.search(r"'action': '\w+'", run(read))


def test_an_erased_profile_is_absent_until_it_does_something_again(settings: Settings) -> None:
    before = title_open("leaver")
    send(settings, [before])
    until(lambda: online(settings, "leaver") == before["event_id"], "the event in the features")
    assert "1 profile" in command(settings, "erase", "leaver")
    until(lambda: online(settings, "leaver") is None, "no features")
    assert IntentReader(settings).read(["leaver"])[0].freshness is Freshness.ABSENT
    send(settings, [before])
    until(lambda: lag(settings) == 0, "no lag")
    assert online(settings, "leaver") is None
    after = title_open("leaver")
    send(settings, [after])
    until(lambda: online(settings, "leaver") == after["event_id"], "the new event")
    assert online(settings, "leaver", "sequence_no") == 1


def test_an_erased_profile_does_not_come_back_from_what_has_landed_after_a_lost_store(
    settings: Settings, stack: Stack
) -> None:
    # Taken out of the files are the rows only by the second sink.
    config = settings.model_copy(update={"sink_interval_s": 0.2, "erasure_rewrite_s": 600.0})
    folder = source_folder(config, intent_features)
    before = datetime.now(UTC)

    def profiles() -> set[str]:
        return {row["profile_id"] for row in landed(config)} if folder.exists() else set()

    def served(profile_id: str) -> tuple[object, object]:
        asked = pd.DataFrame({"profile_id": [profile_id], "event_timestamp": [datetime.now(UTC)]})
        history = open_store(config).get_historical_features(asked, ["profile_intent:genre"])
        (intent,) = IntentReader(config).read([profile_id])
        return intent.freshness, history.to_df()["genre"].isna().item()

    with sink(config):
        send(config, [title_open("stays"), title_open("goes")])
        until(lambda: {"stays", "goes"} <= profiles(), "both profiles' rows in files")
        command(config, "erase", "goes")
        until(lambda: "goes" in joined(notes(folder)), "the sink's note of the erasure")
    assert "goes" in profiles()
    with redis_client.Redis.from_url(redis_address(config)) as database:
        database.flushdb()
    open_store(config).materialize(before, datetime.now(UTC), ["profile_intent"])
    assert served("stays") == (Freshness.FRESH, False)
    assert served("goes") == (Freshness.ABSENT, True)
    with sink(config.model_copy(update={"erasure_rewrite_s": 0.5})):
        until(lambda: "goes" not in profiles(), "no row of the erased profile in files")
        until(lambda: not notes(folder), "no erasure that is left to do")
        counted = answer(config, "/metrics")[1]
        assert re.search(r"intentstream_sink_erased_rows_total [1-9]", counted)
    assert "stays" in profiles()


def redis_address(settings: Settings) -> str:
    """Of the database of these settings, as a URL."""
    address, _, database = settings.redis_url.get_secret_value().partition(",db=")
    return f"redis://{address}/{database}"


def test_a_store_that_takes_no_writes_for_a_while_holds_the_worker_and_does_not_end_it(
    settings: Settings, stack: Stack
) -> None:
    def started() -> str:
        told = http(settings, "/metrics")[1]
        return next(line for line in told.splitlines() if "process_start_time_seconds " in line)

    before, event = started(), title_open("patient")
    with redis_client.Redis(port=stack.settings.redis_port) as server:
        server.config_set("min-replicas-to-write", 1)
        try:
            send(settings, [event])
            until(lambda: http(settings, "/ready")[0] == 503, "a worker that is not ready")
            assert http(settings, "/live")[0] == 200
        finally:
            server.config_set("min-replicas-to-write", 0)
    until(lambda: online(settings, "patient") == event["event_id"], "the event in the features")
    until(lambda: http(settings, "/ready")[0] == 200, "a worker that is ready")
    assert started() == before


def test_a_search_is_re_ranked_on_what_was_just_looked_at(
    settings: Settings, served_model: str, model_repository: Path
) -> None:
    ids = [f"title-{number}" for number in range(4)]
    titles = pa.table(
        {
            "title_id": ids,
            "genres": [["drama"], ["comedy"]] * 2,
            "kind": ["movie"] * 4,
            "release_day": pa.array([0] * 4, pa.int32()),
        }
    )
    vectors = exported_vectors(model_repository / "fm_intent" / served_model / "model.pt", titles)
    publish_titles(settings, titles, vectors, served_model, datetime.now(UTC))
    found = [Candidate(title_id) for title_id in ids]
    reranker = Reranker(settings)
    assert reranker.rerank("searcher", found).order is Order.ENGINE
    event = title_open("searcher", title_id=ids[0])
    send(settings, [event])
    until(lambda: online(settings, "searcher") == event["event_id"], "the event in the features")
    answer = reranker.rerank("searcher", found)
    assert (answer.order, answer.model_version) == (Order.INTENT, served_model)
    read = [{reason.term: reason.value for reason in one.reasons} for one in answer.candidates]
    assert all(values[match] is not None for values in read for match in MATCHES)


def test_duplicates_and_disorder_leave_the_same_features(settings: Settings) -> None:
    events = [title_open("shuffled", occurred_at_ms=1_000 + n + _now_ms()) for n in range(5)]
    send(settings, [events[3], events[0], events[3], events[4], events[1], events[2], events[0]])
    until(lambda: online(settings, "shuffled", "sequence_no") == 5, "all five interactions")
    assert online(settings, "shuffled") == events[4]["event_id"]


def test_bad_records_land_in_the_dead_letter_topic_with_their_reason(settings: Settings) -> None:
    good = title_open("mixed")
    wrong_key = title_open("somebody")
    send(settings, [(b"mixed", b"junk"), (b"else", orjson.dumps(wrong_key)), good])
    until(lambda: online(settings, "mixed") == good["event_id"], "the good one in the features")
    until(lambda: lag(settings) == 0, "no lag")
    letters = {
        record.value: reason(record)
        for record in records(settings, topics.BROWSE_DLQ)
        if record.key in (b"mixed", b"else")
    }
    assert letters == {b"junk": "not_json", orjson.dumps(wrong_key): "key_mismatch"}
    assert online(settings, "somebody") is None


def test_a_cloud_event_happened_when_its_time_says_wherever_the_worker_runs(
    settings: Settings,
) -> None:
    event = title_open("cloud")
    event_id, at_ms = event.pop("event_id"), event.pop("occurred_at_ms") // 1000 * 1000
    tokyo = datetime.fromtimestamp(at_ms / 1000, timezone(timedelta(hours=9)))
    cloud = {"ce_specversion": b"1.0", "ce_id": event_id.encode()}
    zoneless = tokyo.replace(tzinfo=None).isoformat()
    send(settings, [event], cloud | {"ce_time": zoneless.encode()})
    send(settings, [event], cloud | {"ce_time": tokyo.isoformat().encode()})
    until(lambda: online(settings, "cloud") == event_id, "the event in the features")
    assert online(settings, "cloud", "last_event_at").timestamp() * 1000 == at_ms
    letters = told(settings, "dlq", "list", "--reason", "wrong_type", "--json")
    (letter,) = [letter for letter in letters if letter["key"] == "cloud"]
    assert f"ce_time is '{zoneless}': it has no offset" in letter["message"]


def test_dead_letters_of_strangers_are_listed_as_they_are(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")  # a key in one line
    key, topic = "[/b]\x1b[2J\u202e\x9b", settings.topic(topics.BROWSE_DLQ)
    send(settings, [(key.encode(), b"junk")])

    async def add_a_letter_of_another_tool() -> None:
        async with running(AIOKafkaProducer, settings) as producer:
            headers = [("intent.reason", b"foreign"), ("__connect.errors.topic", b"[/x]\xff")]
            await producer.send_and_wait(topic, b"\xff", key=key.encode(), headers=headers)

    asyncio.run(add_a_letter_of_another_tool())
    until(
        lambda: key in [one["key"] for one in told(settings, "dlq", "list", "--json")], "a letter"
    )
    listed = command(settings, "dlq", "list")
    assert not set(listed) & set("\x1b\x9b\u202e")
    assert listed.count(r"[/b]\x1b[2J\u202e\x9b") == 2
    (foreign,) = told(settings, "dlq", "list", "--reason", "foreign", "--json")
    assert (foreign["key"], foreign["value"], foreign["source_topic"]) == (
        key,
        "\\xff",
        "[/x]\\xff",
    )


def test_dead_letters_are_listed_and_sent_again_as_they_came(settings: Settings) -> None:
    future = title_open("early", occurred_at_ms=_now_ms() + 306_000)
    send(settings, [future])
    until(lambda: told(settings, "dlq", "list", "--reason", "in_the_future", "--json"), "a letter")
    (letter,) = told(settings, "dlq", "list", "--reason", "in_the_future", "--json")
    assert orjson.loads(letter["value"]) == future
    # Seconds later its time is no longer too far ahead.
    until(lambda: _now_ms() > future["occurred_at_ms"] - 299_000, "the time to come")
    command(settings, "dlq", "replay", "--reason", "in_the_future")
    until(lambda: online(settings, "early") == future["event_id"], "the event in the features")


def test_an_event_of_last_week_goes_to_late_events(settings: Settings) -> None:
    late = title_open("sleeper", occurred_at_ms=_now_ms() - 7 * 86_400_000)
    send(settings, [late, title_open("sleeper")])
    until(lambda: online(settings, "sleeper", "sequence_no") == 1, "only the newer event")
    found = [r for r in records(settings, topics.LATE_EVENTS) if r.key == b"sleeper"]
    assert [(orjson.loads(r.value)["event_id"], reason(r)) for r in found] == [
        (late["event_id"], "behind_broker")
    ]


def test_every_published_row_is_announced_on_the_features_topic(settings: Settings) -> None:
    event = title_open("announced")
    send(settings, [event])
    until(lambda: online(settings, "announced") == event["event_id"], "the event in the features")
    until(lambda: lag(settings) == 0, "no lag")
    rows = [
        orjson.loads(record.value)
        for record in records(settings, topics.INTENT_FEATURES)
        if record.key == b"announced"
    ]
    assert rows[-1]["last_event_id"] == event["event_id"]
    assert rows[-1]["next_title_ids"] == online(settings, "announced", "next_title_ids")


def test_the_metrics_tell_what_became_of_the_events(settings: Settings) -> None:
    send(settings, [title_open("counted")])
    until(lambda: online(settings, "counted") is not None, "the event in the features")
    _, text = http(settings, "/metrics")
    assert 'intentstream_events_total{outcome="applied",topic="browse-events"}' in text
    assert 'intentstream_freshness_seconds_bucket{le="0.001",leg="produced_readable"}' in text
    until(lambda: "kafka_consumergroup_lag{" in http(settings, "/metrics")[1], "lag in the metrics")


def test_every_metric_that_a_dashboard_or_an_alert_reads_is_exported(
    settings: Settings, stack: Stack
) -> None:
    port = stack.settings.triton_metrics_port
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=ANSWER_S) as page:
        exported = http(settings, "/metrics")[1] + page.read().decode()
    known = set(re.findall(r"^# TYPE (\w+)", exported, re.MULTILINE))
    read = {
        name.removesuffix("_bucket")
        for file in ("prometheus/rules.yml", "grafana/dashboards/intentstream.json")
        for name in re.findall(
            r"\b(?:intentstream|kafka|fm_intent|nv)_\w+", (REPOSITORY / "infra" / file).read_text()
        )
    }
    assert len(read) > 20
    assert read <= known


def test_lag_is_told_for_any_group_as_json(settings: Settings) -> None:
    until(lambda: lag(settings) == 0, "no lag")
    (entries,) = told(settings, "lag", settings.consumer_group, "--json")
    assert {entry["topic"] for entry in entries} >= {settings.topic(topics.BROWSE_EVENTS)}
    assert all(entry["lag"] == 0 for entry in entries)
    assert sum(entry["committed"] or 0 for entry in entries) > 0


@pytest.mark.parametrize("dependency", ["triton", "redis"])
def test_a_dependency_that_dies_holds_events_back_and_loses_none(
    settings: Settings, stack: Stack, served_model: str, dependency: str
) -> None:
    event = title_open(f"patient-{dependency}")
    os.kill(stack.pid(dependency), signal.SIGSTOP)
    try:
        send(settings, [event])
        until(lambda: http(settings, "/ready")[0] == 503, "a worker that says not ready")
        assert http(settings, "/live")[0] == 200
        assert lag(settings) > 0
    finally:
        os.kill(stack.pid(dependency), signal.SIGCONT)
    until(lambda: http(settings, "/ready")[0] == 200, "a worker that is ready again")
    until(
        lambda: online(settings, f"patient-{dependency}") == event["event_id"], "the event online"
    )


def test_a_group_that_is_set_back_reports_nothing_late_that_was_taken_in_before(
    isolated: Settings, kafka: str, redis: str, served_model: str, tmp_path: Path
) -> None:
    config = isolated.model_copy(update={"model_version": served_model})
    asyncio.run(create_topics(config))
    log, now_ms = tmp_path / "worker.log", _now_ms()
    long = [title_open("long", occurred_at_ms=now_ms - 60_000 + n) for n in range(150)]
    send(config, long)
    with worker(config, log, wait=True):
        until(lambda: lag(config) == 0, "no lag")
    assert online(config, "long", "sequence_no") == len(long)

    async def set_back() -> None:
        topic = config.topic(topics.BROWSE_EVENTS)
        places = [TopicPartition(topic, number) for number in range(config.topic_partitions)]
        async with running(
            AIOKafkaConsumer, config, group_id=config.consumer_group, enable_auto_commit=False
        ) as consumer:
            consumer.assign(places)
            await consumer.commit(dict.fromkeys(places, 0))

    asyncio.run(set_back())
    assert lag(config) == len(long)
    late = title_open("long", occurred_at_ms=now_ms - 70_000)
    send(config, [late])
    with worker(config, log, wait=True):
        until(lambda: lag(config) == 0, "no lag")
    told_late = [orjson.loads(one.value)["event_id"] for one in records(config, topics.LATE_EVENTS)]
    assert told_late == [late["event_id"]]
    assert online(config, "long", "sequence_no") == len(long)
    assert online(config, "long") == long[-1]["event_id"]


def test_a_worker_that_can_never_succeed_ends_and_acknowledges_nothing(
    isolated: Settings, kafka: str, redis: str, served_model: str, tmp_path: Path
) -> None:
    # This Redis knows no password, so it refuses every client that gives one.
    refused = SecretStr(f"{isolated.redis_url.get_secret_value()},password=wrong")
    config = isolated.model_copy(
        update={"redis_url": refused, "model_version": served_model, "instance_id": "worker-1"}
    )
    asyncio.run(create_topics(config))
    send(config, [title_open("refused")])
    log = tmp_path / "worker.log"
    with worker(config, log) as process:
        assert exit_code(process) != 0
    assert lag(config) == 1
    assert "password=wrong" not in log.read_text()

    mended = config.model_copy(update={"redis_url": isolated.redis_url})
    with worker(mended, log, wait=True):
        until(lambda: online(mended, "refused") is not None, "the event after the mending")


def test_a_worker_without_its_topics_ends_and_says_how_to_make_them(
    isolated: Settings, kafka: str, redis: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with worker(isolated, log) as process:
        assert exit_code(process) != 0
    assert "`intentstream topics` makes them" in log.read_text()


def test_a_profile_that_was_idle_starts_anew_also_after_a_restart(
    isolated: Settings, kafka: str, redis: str, served_model: str, tmp_path: Path
) -> None:
    config = isolated.model_copy(update={"model_version": served_model, "idle_profile_s": 5})
    asyncio.run(create_topics(config))
    log = tmp_path / "worker.log"

    def happens(profile_id: str) -> None:
        event = title_open(profile_id)
        send(config, [event])
        until(lambda: online(config, profile_id) == event["event_id"], f"{event} in the features")

    def tombstones() -> list[bytes]:
        changelog = records(config, topics.SESSIONS_CHANGELOG)
        return [record.key for record in changelog if record.value is None and record.key]

    with worker(config, log, wait=True):
        happens("sleeper")
    time.sleep(config.idle_profile_s)
    with worker(config, log, wait=True):
        assert tombstones() == []
        happens("other")
        until(lambda: tombstones() == [b"sleeper"], "the sleeper's tombstone")
        happens("sleeper")
        assert online(config, "sleeper", "sequence_no") == 1
    with worker(config, log, wait=True):
        happens("sleeper")
        assert online(config, "sleeper", "sequence_no") == 2


def _now_ms() -> int:
    return round(time.time() * 1000)
