"""What history says is what was served: a replay through the real worker, read while it runs."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from features.definitions import profile_intent, ranker_v1
from features.registry.store import open_store
from fm_intent.data import contract
from lab.replay.plan import Mix, Plan, plan_replay
from lab.replay.producer import replay
from stream.kafka.admin import create_topics
from tests.conftest import isolate
from tests.sinks import landed, sink, unlanded
from tests.workers import lag, until, worker

if TYPE_CHECKING:
    from infra.local.stack import Stack
    from stream.settings import Settings

EVENTS: Final = 600
PROFILES: Final = [f"p-{number}" for number in range(24)]
PAUSES: Final = 6
FEATURES: Final = [feature.name for feature in profile_intent.features]
DISORDER: Final = Mix(repeats=0, disorder=0.2, too_late=0, malformed=0, reach=40)
"""Late events make rows of one event time. Repeats would make a second, later `published_at` of a
row, of which the first is kept."""


class Read(NamedTuple):
    """What Feast's online read returned of a profile at a moment."""

    profile_id: str
    at: datetime
    values: dict[str, Any]


def plan() -> Plan:
    """Ten minutes of plays and opened titles, some of which come late."""
    rng = np.random.default_rng(7)
    plays = rng.random(EVENTS) < 0.6
    events = contract.table(
        contract.EVENTS_SCHEMA,
        {
            "event_id": pa.array([f"e{n}" for n in range(EVENTS)]),
            "profile_id": pa.array(rng.choice(PROFILES, EVENTS)),
            "event_type": pa.array(np.where(plays, "play_start", "title_open")),
            "occurred_at_ms": pa.array(np.arange(EVENTS) * 1_000),
            "title_id": pa.array([f"title-{n}" for n in rng.integers(0, 40, EVENTS)]),
            "playback_id": pa.array([f"s{n}" for n in range(EVENTS)], mask=~plays),
        },
    )
    now_ms = round(time.time() * 1000)
    return plan_replay(events, seed=7, now_ms=now_ms, lateness_s=3_600, mix=DISORDER)


def read(settings: Settings) -> list[Read]:
    """All profiles' features now."""
    at = datetime.now(UTC)
    answer = open_store(settings).get_online_features(ranker_v1, {"profile_id": PROFILES})
    columns = answer.to_dict()
    return [
        Read(profile_id, at, {name: columns[name][row] for name in FEATURES})
        for row, profile_id in enumerate(PROFILES)
    ]


def in_history(settings: Settings, reads: list[Read]) -> list[dict[str, Any]]:
    """What a historical read says of the same profiles and moments."""
    asked = pd.DataFrame(
        {
            "profile_id": [one.profile_id for one in reads],
            "event_timestamp": [one.at for one in reads],
        }
    )
    store = open_store(settings)
    job = store.get_historical_features(asked, store.get_feature_service(ranker_v1.name))
    rows: list[dict[str, Any]] = job.to_arrow().select(FEATURES).to_pylist()
    return rows


@pytest.fixture(scope="module")
def served(
    stack: Stack,
    kafka: str,
    redis: str,
    served_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Settings, list[Read], list[Read]]:
    """The settings, what was read in pauses of the replay, and what while rows were on their way.

    In a pause everything that was sent is published, so that no row is made and not yet readable.
    """
    home = tmp_path_factory.mktemp("parity")
    settings = isolate(stack.settings, home).model_copy(
        update={"model_version": served_model, "sink_interval_s": 1.0}
    )
    asyncio.run(create_topics(settings))
    whole = plan()
    paused: list[Read] = []
    meanwhile: list[Read] = []
    ends = Event()

    def read_on() -> None:
        while not ends.wait(0.05):
            meanwhile.extend(read(settings))

    with (
        worker(settings, home / "worker.log", wait=True),
        sink(settings),
        ThreadPoolExecutor() as pool,
    ):
        reading = pool.submit(read_on)
        try:
            for part in np.array_split(np.arange(len(whole)), PAUSES):
                burst = replace(whole, fate=whole.fate[part], row=whole.row[part])
                asyncio.run(replay(burst, settings, events_per_s=None, progress=lambda _: None))
                until(lambda: lag(settings) == 0, "no lag")
                paused += read(settings)
        finally:
            ends.set()
        reading.result()
        until(lambda: unlanded(settings) == 0, "all rows in the offline store")
    return settings, paused, meanwhile


def test_history_has_every_feature_as_it_was_read_online_at_that_moment(
    served: tuple[Settings, list[Read], list[Read]],
) -> None:
    settings, paused, _ = served
    assert len({str(one.values) for one in paused}) > 3 * len(PROFILES), "hardly any change"
    for one, found in zip(paused, in_history(settings, paused), strict=True):
        assert found == one.values, (one.profile_id, one.at)


def test_what_was_read_while_rows_were_on_their_way_has_landed_as_it_was(
    served: tuple[Settings, list[Read], list[Read]],
) -> None:
    settings, _, meanwhile = served
    rows = {(row["profile_id"], row["sequence_no"]): row for row in landed(settings)}
    present = [one for one in meanwhile if one.values["sequence_no"] is not None]
    assert len(present) > len(PROFILES)
    for one in present:
        row = rows[one.profile_id, one.values["sequence_no"]]
        assert {name: row[name] for name in FEATURES} == one.values


def test_a_moment_before_a_row_was_published_does_not_have_it(
    served: tuple[Settings, list[Read], list[Read]],
) -> None:
    settings, paused, _ = served
    last = [one for one in paused[-len(PROFILES) :] if one.values["sequence_no"] is not None]
    before = [
        one._replace(at=one.values["published_at"] - timedelta(milliseconds=1)) for one in last
    ]
    for one, found in zip(last, in_history(settings, before), strict=True):
        assert found["sequence_no"] is None or found["sequence_no"] < one.values["sequence_no"]
