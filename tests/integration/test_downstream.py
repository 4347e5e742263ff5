"""Intents as they would have been published: asked of the real server, joined by Feast."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from features.definitions import search_rerank_v1
from features.reading.rerank import MATCHES
from features.registry.store import open_store
from fm_intent.data.contract import EVENTS_SCHEMA, table
from lab.bench.downstream.live_features import Live
from lab.bench.downstream.published_intents import PUBLISH_MS, Offline, published_rows, utc
from lab.bench.downstream.requests import Requests
from lab.bench.downstream.source_history import NO_TITLE, TitleColumns
from stream.domain.catalogue import Catalogue
from stream.domain.labels import hash64
from stream.inference.client import InferenceClient
from stream.settings import Settings
from tests.unit.features.samples import sample

if TYPE_CHECKING:
    from pathlib import Path

    from stream.domain.feature_row import IntentRow

T1_MS = 1_000_000_000_000
MINUTE_MS = 60_000
VECTOR = [0.5, 0.25, 2.0]


def requests(*asked: tuple[int, int]) -> Requests:
    """Requests of profile codes at times."""
    profile, at_ms = map(np.array, zip(*asked, strict=True))
    nothing = np.zeros(len(asked), bool)
    return Requests(profile, at_ms, np.full((len(asked), 1), NO_TITLE), nothing, nothing)


def row(profile_id: str, event: int, published: int) -> IntentRow:
    """A row of an event, published some minutes after T1."""
    return sample(
        profile_id=profile_id,
        sequence_no=event + 1,
        last_event_at_ms=T1_MS + event * MINUTE_MS,
        published_at_ms=T1_MS + published * MINUTE_MS,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the repository."""
    return tmp_path_factory.mktemp("offline") / "repository"


@pytest.fixture(scope="module")
def offline(home: Path) -> Offline:
    """Rows of two profiles; the second of "a" was published late."""
    repository = Offline(home)
    repository.land([row("a", 0, 1), row("a", 10, 15), row("a", 20, 21)])
    repository.land([row("b", 5, 6)])
    titles = pa.table(
        {
            "title_id": ["t"],
            "genres": [["drama"]],
            "kind": ["movie"],
            "release_day": pa.array([0], pa.int32()),
        }
    )
    repository.land_titles(titles, {"t": VECTOR}, "4", utc(T1_MS))
    return repository


def test_a_row_is_read_from_its_publication_on_not_from_its_event(offline: Offline) -> None:
    minutes = (0, 12, 15, 20, 25)
    asked = requests(*((0, T1_MS + minute * MINUTE_MS) for minute in minutes))
    found = offline.intents(["a", "b"], asked, asked.at_ms)
    assert found["sequence_no"].fillna(0).tolist() == [0, 1, 11, 11, 21]
    assert found["age_s"].fillna(0).tolist() == [0, 720, 300, 600, 300]


def test_requests_come_back_in_their_order_also_where_they_repeat(offline: Offline) -> None:
    at_ms = T1_MS + 30 * MINUTE_MS
    asked = requests((1, at_ms), (0, at_ms), (1, at_ms))
    found = offline.intents(["a", "b"], asked, asked.at_ms)
    assert found["profile_id"].tolist() == ["b", "a", "b"]
    assert found["sequence_no"].tolist() == [6, 21, 6]


def test_an_earlier_reading_is_as_old_as_it_is_at_the_request(offline: Offline) -> None:
    asked = requests((0, T1_MS + 30 * MINUTE_MS))
    found = offline.intents(["a", "b"], asked, asked.at_ms - 20 * MINUTE_MS)
    assert found["sequence_no"].tolist() == [1]
    assert found["age_s"].tolist() == [1800]


def test_titles_have_their_vectors_at_the_first_cut(offline: Offline) -> None:
    known = offline.titles(["t", "unknown"], utc(T1_MS))
    assert [list(one) for one in known["title_embedding"][:1]] == [VECTOR]
    assert known["title_embedding_version"].fillna("").tolist() == ["4", ""]


def test_matches_are_those_of_the_feature_service(offline: Offline, home: Path) -> None:
    titles = TitleColumns(
        ids=["t"],
        genres=np.zeros((1, 1), np.float32),
        primary=np.array([0]),
        kind=np.array([0]),
        release_day=np.array([0]),
    )
    at_ms = T1_MS + 30 * MINUTE_MS
    asked = replace(requests((0, at_ms)), candidates=np.array([[0]]))
    live = Live(titles, offline.titles(["t"], utc(T1_MS)))
    found = live(asked, offline.intents(["a", "b"], asked, asked.at_ms))
    store = open_store(Settings(feature_registry=home / "registry.db", offline_dir=home))
    request = pd.DataFrame({"profile_id": ["a"], "title_id": ["t"], "event_timestamp": utc(at_ms)})
    service = store.get_feature_service(search_rerank_v1.name)
    served = store.get_historical_features(request, service).to_df().loc[0, list(MATCHES)]
    assert found[0, 0, : len(MATCHES)].tolist() == pytest.approx(served.tolist())


def _events() -> pa.Table:
    """Two profiles: one with a past, one that comes later; a heartbeat, and an impression."""
    rows = [
        ("old", "play_start", -10, "title-1", "s1"),
        ("old", "play_progress", 5, "title-1", "s1"),
        ("new", "title_open", 6, "title-2", None),
        ("old", "impression", 7, "title-3", None),
        ("new", "play_start", 8, "title-2", "s2"),
    ]
    columns: dict[str, Any] = {
        "event_id": [f"e{number}" for number in range(len(rows))],
        "profile_id": [one[0] for one in rows],
        "event_type": [one[1] for one in rows],
        "occurred_at_ms": [T1_MS + one[2] * MINUTE_MS for one in rows],
        "title_id": [one[3] for one in rows],
        "playback_id": [one[4] for one in rows],
    }
    arrays = {
        name: pa.array(values, EVENTS_SCHEMA.field(name).type) for name, values in columns.items()
    }
    return table(EVENTS_SCHEMA, arrays)


def test_every_event_publishes_its_profile(served_model: str, isolated: Settings) -> None:
    done = []
    catalogue = Catalogue({hash64(f"title-{number}"): f"title-{number}" for number in range(40)})

    async def collect() -> list[IntentRow]:
        async with InferenceClient(isolated) as inference:
            batches = published_rows(_events(), catalogue, inference, isolated, T1_MS, done.append)
            return [one async for batch in batches for one in batch]

    rows = asyncio.run(collect())
    published = sorted((one.profile_id, one.published_at_ms - T1_MS) for one in rows)
    assert published == [
        ("new", 6 * MINUTE_MS + PUBLISH_MS),
        ("new", 8 * MINUTE_MS + PUBLISH_MS),
        ("old", 0),
        ("old", 5 * MINUTE_MS + PUBLISH_MS),
    ]
    assert {one.model_version for one in rows} == {served_model}
    last = {one.profile_id: one for one in rows}
    assert (last["new"].last_event_id, last["new"].session_length) == ("e4", 2)
    assert all(title.startswith("title-") for title in last["new"].next_title_ids)
    assert sum(done) == 2
