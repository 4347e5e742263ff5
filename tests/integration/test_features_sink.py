"""The sink on a real Kafka: what is published is what lies in the offline store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from features.definitions import intent_features
from features.registry.places import source_folder
from stream.domain.topics import INTENT_FEATURES
from stream.exceptions import TopicsMissingError
from stream.kafka.admin import create_topics
from stream.kafka.connection import client_options, running
from tests import sinks
from tests.sinks import answer, is_ready, keys, keys_of, landed, publish, sink, unlanded
from tests.unit.features.samples import SAMPLE, sample, to_json
from tests.workers import until

if TYPE_CHECKING:
    from stream.settings import Settings

ROWS = [sample(profile_id=f"p-{n % 7}", sequence_no=n) for n in range(1, 101)]


@pytest.fixture
def settings(isolated: Settings, kafka: str) -> Settings:
    asyncio.run(create_topics(isolated))
    return isolated.model_copy(update={"sink_interval_s": 0.2})


def test_every_published_row_lands_and_the_metrics_tell_what_became_of_all_records(
    settings: Settings,
) -> None:
    with sink(settings):
        publish(settings, [*ROWS, b"junk", None, *ROWS[:3]])
        until(lambda: unlanded(settings) == 0, "no lag")
        _, text = answer(settings, "/metrics")
        for outcome, count in (("landed", 100), ("repeated", 3), ("bad", 1), ("tombstone", 1)):
            assert f'intentstream_sink_records_total{{outcome="{outcome}"}} {count}.0' in text
        until(
            lambda: "kafka_consumergroup_lag{" in answer(settings, "/metrics")[1],
            "lag in the metrics",
        )
    assert keys(settings) == keys_of(ROWS)


def test_a_sink_that_is_told_to_end_lands_what_it_holds_first(settings: Settings) -> None:
    patient = settings.model_copy(update={"sink_interval_s": 600.0})
    with sink(patient):
        publish(settings, ROWS)
        until(lambda: unlanded(settings) == len(ROWS), "rows that wait")
    assert unlanded(settings) == 0
    assert len(landed(settings)) == len(ROWS)


def test_a_sink_that_holds_all_it_may_lands_before_it_is_time(settings: Settings) -> None:
    full = settings.model_copy(update={"sink_interval_s": 600.0, "sink_max_rows": 10})
    with sink(full):
        publish(settings, ROWS)
        until(lambda: unlanded(settings) == 0, "no lag")


def test_rows_that_can_not_be_written_are_held_until_they_can(settings: Settings) -> None:
    place = settings.offline_dir
    assert place is not None
    in_the_way = place / "data"
    in_the_way.write_text("no folder")
    with sink(settings):
        publish(settings, [SAMPLE])
        until(lambda: not is_ready(settings), "a sink that says not ready")
        assert answer(settings, "/live")[0] == 200
        assert unlanded(settings) == 1
        in_the_way.unlink()
        until(lambda: unlanded(settings) == 0, "no lag")
        assert is_ready(settings)
    assert len(landed(settings)) == 1


def test_rows_are_held_while_a_file_of_their_hour_can_not_be_read(settings: Settings) -> None:
    with sink(settings):
        publish(settings, [SAMPLE])
        until(lambda: unlanded(settings) == 0, "no lag")
    (file,) = source_folder(settings, intent_features).rglob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with sink(settings):
        publish(settings, [SAMPLE, sample(sequence_no=SAMPLE.sequence_no + 1)])
        until(lambda: not is_ready(settings), "a sink that says not ready")
        assert answer(settings, "/live")[0] == 200
        file.write_bytes(whole)
        until(lambda: unlanded(settings) == 0, "no lag")
    assert len(landed(settings)) == 2


def test_only_rows_of_committed_transactions_land_and_their_markers_are_no_lag(
    settings: Settings,
) -> None:
    async def transactions() -> None:
        options = client_options(settings)
        topic = settings.topic(INTENT_FEATURES)
        async with AIOKafkaProducer(**options, transactional_id=settings.consumer_group) as one:
            for number, ends in enumerate((one.commit_transaction, one.abort_transaction)):
                await one.begin_transaction()
                row = sample(sequence_no=number)
                await one.send_and_wait(topic, to_json(row), partition=number)
                await ends()

    with sink(settings):
        asyncio.run(transactions())
        until(lambda: unlanded(settings) == 0, "no lag, with markers at the logs' ends")
    assert [row["sequence_no"] for row in landed(settings)] == [0]


def test_a_topic_that_is_made_anew_is_told_and_read_within_seconds(settings: Settings) -> None:
    async def delete() -> None:
        async with running(AIOKafkaAdminClient, settings) as admin:
            await admin.delete_topics([settings.topic(INTENT_FEATURES)])

    with sink(settings):
        publish(settings, ROWS[:50])
        until(lambda: unlanded(settings) == 0, "no lag")
        asyncio.run(delete())
        until(lambda: not is_ready(settings), "a sink that says not ready", 30)
        asyncio.run(create_topics(settings))
        publish(settings, ROWS[50:])
        until(lambda: keys(settings) == keys_of(ROWS), "what came to the new topic", 60)
        until(lambda: is_ready(settings), "a ready sink", 30)


def test_a_sink_without_its_topics_ends_and_says_so(isolated: Settings, kafka: str) -> None:
    with pytest.raises(TopicsMissingError, match="`intentstream topics` makes them"):
        sinks.run(isolated)
