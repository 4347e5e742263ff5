"""A sink that is killed, anywhere and at any time, loses no row and lands none twice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from features.definitions import intent_features
from features.offline.erasures import notes
from features.registry.places import source_folder
from stream.domain.feature_row import Erasure
from stream.kafka.admin import create_topics
from stream.ports import free_ports
from tests import sinks
from tests.chaos import crashing_sink
from tests.sinks import ended, is_ready, keys, keys_of, publish, sink, tombstone, unlanded
from tests.unit.features.samples import SAMPLE, sample
from tests.workers import until

if TYPE_CHECKING:
    from stream.domain.feature_row import IntentRow
    from stream.settings import Settings

HOUR_MS = 3_600_000


@pytest.fixture
def settings(isolated: Settings, kafka: str) -> Settings:
    asyncio.run(create_topics(isolated))
    return isolated.model_copy(update={"sink_interval_s": 0.2, "session_timeout_s": 6})


def rows(number: int) -> list[IntentRow]:
    """Rows of a few profiles in two hours, half of which are published a second time."""
    first = [
        sample(
            profile_id=f"p-{profile}",
            sequence_no=number,
            published_at_ms=SAMPLE.published_at_ms + number * HOUR_MS + hour * HOUR_MS,
            model_version=str(hour),
        )
        for hour in range(2)
        for profile in range(6)
    ]
    again = [replace(row, published_at_ms=row.published_at_ms + 60_000) for row in first[::2]]
    return first + again


def test_rows_land_once_though_the_sink_is_killed_at_every_boundary(settings: Settings) -> None:
    # Its name gives a sink that is started again its partitions at once.
    settings = settings.model_copy(update={"instance_id": "sink-1"})
    published: list[IntentRow] = []
    for number, boundary in enumerate(crashing_sink.BOUNDARIES, start=1):
        batch = rows(number)
        publish(settings, batch)
        published += batch
        process = sinks.start(crashing_sink.run, settings, boundary)
        assert ended(process) == -signal.SIGKILL, boundary
        assert set(keys(settings) if number > 2 else ()) <= set(keys_of(published))
    with sink(settings):
        until(lambda: unlanded(settings) == 0, "no lag")
    assert keys(settings) == keys_of(published)


def other(settings: Settings) -> Settings:
    """A second sink of the same group and folder."""
    (port,) = free_ports(1)
    return settings.model_copy(update={"sink_port": port})


def test_rows_land_once_though_sinks_come_and_are_killed_under_load(settings: Settings) -> None:
    published: list[IntentRow] = []

    def publish_some() -> None:
        batch = rows(len(published))
        publish(settings, batch)
        published.extend(batch)

    for _ in range(2):
        with sink(settings), sink(other(settings)) as second:
            for _ in range(5):
                publish_some()
            second.kill()
            publish_some()
    with sink(settings):
        until(lambda: unlanded(settings) == 0, "no lag")
    assert keys(settings) == keys_of(published)


def test_a_sink_that_sleeps_through_the_loss_of_its_partitions_lands_nothing_twice(
    settings: Settings,
) -> None:
    first, second = rows(1), rows(2)
    # It has landed the first rows, knows their hour's keys, and holds the second.
    patient = settings.model_copy(update={"sink_interval_s": 600.0, "sink_max_rows": len(first)})
    with sink(patient) as sleeper:
        publish(settings, first)
        until(lambda: unlanded(settings) == 0, "the first rows")
        publish(settings, second[:-1])
        until(lambda: unlanded(settings) == len(second) - 1, "rows that are held")
        time.sleep(2)  # a fetch waits half a second
        os.kill(sleeper.pid or 0, signal.SIGSTOP)
        heir = other(settings)
        try:
            with sink(heir):
                until(lambda: not is_ready(heir), "an heir that waits for the files")
                os.kill(sleeper.pid or 0, signal.SIGCONT)
                until(lambda: unlanded(settings) == 0, "no lag")
        finally:
            os.kill(sleeper.pid or 0, signal.SIGCONT)
    assert keys(settings) == keys_of(first + second[:-1])


def test_erased_rows_go_and_no_other_though_the_sink_is_killed_while_it_takes_them_out(
    settings: Settings,
) -> None:
    settings = settings.model_copy(update={"instance_id": "sink-1", "erasure_rewrite_s": 600.0})
    published = rows(1)
    erasures = {
        f"p-{profile}": Erasure(max(row.published_at_ms for row in published), 0)
        for profile in range(len(crashing_sink.REWRITING))
    }
    publish(settings, published)
    with sink(settings):
        until(lambda: unlanded(settings) == 0, "no lag")
    # Their tombstones come by themselves, so that all rows have landed before.
    publish(settings, [tombstone(settings, *one) for one in erasures.items()])
    with sink(settings):
        until(lambda: unlanded(settings) == 0, "no lag")
    assert keys(settings) == keys_of(published)
    often = settings.model_copy(update={"erasure_rewrite_s": 0.5})
    for boundary in crashing_sink.REWRITING:
        process = sinks.start(crashing_sink.run, often, boundary)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, boundary
        assert set(keys(settings)) <= set(keys_of(published))
    kept = keys_of([row for row in published if row.profile_id not in erasures])
    with sink(often):
        folder = source_folder(settings, intent_features)
        until(lambda: not notes(folder), "no erasure that is left to do")
        # What is delivered again, by a reset of the group for example, doesn't stay either.
        publish(settings, published)
        until(lambda: unlanded(settings) == 0, "no lag")
        publish(settings, [tombstone(settings, *one) for one in erasures.items()])
        until(lambda: keys(settings) == kept, "no row of the erased profiles")
    assert keys(settings) == kept
