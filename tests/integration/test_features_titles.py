"""Titles beside intents: landed, materialized, joined at a point in time, matched when asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from operator import mul
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis as redis_client

from features.online.inspection import inspector_of
from features.online.titles import publish_titles
from features.online.writer import IntentWriter
from features.registry.store import open_store
from fm_intent.data import contract
from fm_intent.exported import exported_vectors
from intentstream.served_titles import serve_titles, titles_in
from stream.domain.labels import hash64
from stream.settings import Settings
from tests.unit.features.samples import SAMPLE, sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CUT = datetime(2003, 3, 1, tzinfo=UTC)
CATALOGUE = pa.table(
    {
        "title_id": ["drama", "unknown", "future"],
        "genres": [["drama"], [], ["comedy"]],
        "kind": ["movie", None, "show"],
        "release_day": pa.array([-5_000, None, 12_000], pa.int32()),
    }
)
VECTOR = [1.0, 2.0, 4.0]


@pytest.fixture
def settings(redis: str, tmp_path: Path) -> Iterator[Settings]:
    """A store with titles of model version 4, in a folder of its own."""
    host, port = redis.split(":")
    with redis_client.Redis(host=host, port=int(port), db=9) as client:
        settings = Settings(
            redis_url=f"{redis},db=9",
            feature_registry=tmp_path / "registry.db",
            offline_dir=tmp_path,
        )
        publish_titles(settings, CATALOGUE, {"drama": VECTOR}, SAMPLE.model_version, CUT)
        yield settings
        client.flushdb()


def test_a_worker_can_tell_which_title_vectors_are_there_and_that_they_are_lost(
    settings: Settings,
) -> None:
    async def titles() -> str | None:
        inspector = inspector_of(settings)
        assert inspector is not None
        found = await inspector.titles()
        await inspector.close()
        return found

    assert asyncio.run(titles()) == SAMPLE.model_version
    with redis_client.Redis.from_url(
        f"redis://{settings.redis_url.get_secret_value().partition(',')[0]}/9"
    ) as client:
        client.flushdb()
    assert asyncio.run(titles()) is None


def test_the_newest_row_of_a_title_is_served(settings: Settings) -> None:
    store = open_store(settings)
    features = ["title_profile:title_kind", "title_profile:title_embedding"]
    read = store.get_online_features(features, {"title_id": ["drama", "unknown", "nothing"]})
    assert read.to_dict()["title_embedding"] == [VECTOR, None, None]
    assert read.to_dict()["title_kind"] == ["movie", None, None]


def test_candidates_are_matched_with_the_live_intent(settings: Settings) -> None:
    async def write() -> None:
        writer = IntentWriter(settings)
        await writer.start()
        await writer.write([sample(user_embedding=[1.0, 1.0, 0.5], kind_probs=[0.25, 0.75])])
        await writer.close()

    asyncio.run(write())
    store = open_store(settings)
    service = store.get_feature_service("search_rerank_v1")
    asked = [
        {"profile_id": profile, "title_id": title}
        for profile, title in ((SAMPLE.profile_id, "drama"), ("nobody", "drama"))
    ]
    matches = store.get_online_features(service, asked).to_dict()
    assert matches["embedding_match"] == [5.0 - SAMPLE.title_log_norm, None]
    assert matches["kind_match"] == [0.25, None]


def test_a_vector_is_unknown_before_the_end_of_its_training_data(settings: Settings) -> None:
    store = open_store(settings)
    asked = pd.DataFrame(
        {
            "title_id": ["drama", "drama"],
            "event_timestamp": [datetime(2003, 2, 1, tzinfo=UTC), datetime(2003, 4, 1, tzinfo=UTC)],
        }
    )
    features = ["title_profile:title_kind", "title_profile:title_embedding_version"]
    joined = store.get_historical_features(asked, features).to_df()
    joined = joined.sort_values("event_timestamp")
    assert list(joined["title_kind"]) == ["movie", "movie"]
    assert [version or None for version in joined["title_embedding_version"]] == [
        None,
        SAMPLE.model_version,
    ]


def test_a_later_version_replaces_the_vectors_online(settings: Settings) -> None:
    later = datetime(2003, 5, 1, tzinfo=UTC)
    publish_titles(settings, CATALOGUE, {"drama": [9.0]}, "5", later)
    read = open_store(settings).get_online_features(
        ["title_profile:title_embedding", "title_profile:title_embedding_version"],
        {"title_id": ["drama"]},
    )
    assert read.to_dict()["title_embedding"] == [[9.0]]
    assert read.to_dict()["title_embedding_version"] == ["5"]


def test_going_back_to_a_version_serves_its_vectors_again(settings: Settings) -> None:
    later = datetime(2003, 5, 1, tzinfo=UTC)
    publish_titles(settings, CATALOGUE, {"drama": [9.0]}, "5", later)
    publish_titles(settings, CATALOGUE, {"drama": VECTOR}, "4", CUT)
    read = open_store(settings).get_online_features(
        ["title_profile:title_embedding"], {"title_id": ["drama"]}
    )
    assert read.to_dict()["title_embedding"] == [VECTOR]


def test_titles_lost_online_are_materialized_again_by_feast(settings: Settings, redis: str) -> None:
    store = open_store(settings)
    service = ["title_profile:title_genres", "title_profile:title_embedding"]
    before = store.get_online_features(service, {"title_id": ["drama", "unknown"]}).to_dict()
    host, port = redis.split(":")
    with redis_client.Redis(host=host, port=int(port), db=9) as client:
        client.flushdb()
    begin, end = datetime(1900, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    store.materialize(begin, end, feature_views=["title_profile"])
    after = store.get_online_features(service, {"title_id": ["drama", "unknown"]}).to_dict()
    assert after == before
    assert after["title_embedding"] == [VECTOR, None]


@pytest.mark.parametrize(
    ("feature_ttl_s", "title_ttl_s"), [(100, 0), (0, 100)], ids=["profiles", "titles"]
)
def test_each_view_s_rows_have_its_own_time_to_live(
    settings: Settings, redis: str, feature_ttl_s: int, title_ttl_s: int
) -> None:
    ttls = {"feature_ttl_s": feature_ttl_s, "title_ttl_s": title_ttl_s}
    config = settings.model_copy(update=ttls)

    async def write() -> None:
        writer = IntentWriter(config)
        await writer.start()
        await writer.write([SAMPLE])
        await writer.close()

    asyncio.run(write())
    publish_titles(config, CATALOGUE, {}, "5", CUT)
    host, port = redis.split(":")
    with redis_client.Redis(host=host, port=int(port), db=9) as client:
        expire = {key: client.ttl(key) > 0 for key in client.scan_iter()}
    assert {kept for key, kept in expire.items() if b"profile_id" in key} == {feature_ttl_s > 0}
    assert {kept for key, kept in expire.items() if b"title_id" in key} == {title_ttl_s > 0}


@pytest.fixture
def exported(model_repository: Path, small_model: str) -> Path:
    """The weights of a small exported model version."""
    return model_repository / "fm_intent" / small_model / "model.pt"


def test_an_exported_version_has_a_vector_of_every_title_it_knows(exported: Path) -> None:
    known = [f"title-{number}" for number in range(3)]
    vectors = exported_vectors(exported, pa.table({"title_id": [*known, "stranger"]}))
    assert list(vectors) == known


def test_exported_vectors_rank_titles_as_the_model_does(exported: Path) -> None:
    from fm_intent.served.network import load
    from tests.unit.fm_intent import tiny

    network = load(exported)
    answer = network.answer(tiny.windows(tiny.sequences()), network.titles(), 5)
    ids = tiny.catalogue().title_id
    vectors = exported_vectors(exported, pa.table({"title_id": ids}))
    by_hash = {hash64(title_id): vectors[title_id] for title_id in ids}
    user = answer.user_BD[0].tolist()
    best = answer.next_title_hash[0].tolist()
    seen = tiny.windows(tiny.sequences()).title_BL[0]
    unseen = [title for title in best if title not in network.hash_T[seen].tolist()]
    scores = [sum(map(mul, user, by_hash[title])) for title in unseen]
    assert len(scores) > 1
    assert scores == sorted(scores, reverse=True)


def test_the_titles_of_a_version_are_dated_by_the_last_event_of_its_source(
    settings: Settings, model_repository: Path, small_model: str, tmp_path: Path
) -> None:
    catalogue = {"title_id": ["title-0"], "name": ["First"], "kind": ["movie"], "genres": [["war"]]}
    event = {"event_id": ["e"], "profile_id": ["p"], "event_type": ["title_open"]}
    last_ms = round(CUT.timestamp() * 1000)
    for schema, columns, file in (
        (contract.CATALOGUE_SCHEMA, catalogue, contract.CATALOGUE_FILE),
        (contract.EVENTS_SCHEMA, event | {"occurred_at_ms": [last_ms]}, contract.EVENTS_FILE),
    ):
        arrays = {name: pa.array(values) for name, values in columns.items()}
        pq.write_table(contract.table(schema, arrays), tmp_path / file)
    assert serve_titles(settings, titles_in(int(small_model), model_repository, tmp_path)) == 1
    store = open_store(settings)
    versions = "title_profile:title_embedding_version"
    served = store.get_online_features([versions], {"title_id": ["title-0"]}).to_dict()
    assert served["title_embedding_version"] == [small_model]
    asked = pd.DataFrame(
        {"title_id": "title-0", "event_timestamp": [CUT - timedelta(milliseconds=1), CUT]}
    )
    dated = store.get_historical_features(asked, [versions]).to_arrow()
    assert dated["title_embedding_version"].to_pylist() == [None, small_model]
