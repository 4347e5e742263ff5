"""Rows that are read out of Redis without Feast are those that Feast's own store answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import definitions
from features.online.titles import publish_labels, publish_titles
from features.online.writer import IntentWriter
from features.reading.feast_source import FeastSource
from features.reading.intents import NAMES
from features.reading.reader import IntentReader
from features.reading.redis_source import RedisSource
from features.reading.rerank import MATCHES, Candidate, Reranker
from features.reading.rows import Wanted
from features.schema.fields import FieldType, View
from features.schema.views import RANKER, SEARCH_RERANK, model_labels, profile_intent, title_profile
from stream.domain.feature_row import Erasure
from stream.domain.version_labels import BUILT_IN
from stream.exceptions import DefinitionsError
from tests.integration.test_features_store import (
    database,
    on_a_server,
    settings,
    stock_store,
    write,
)
from tests.unit.features.samples import SAMPLE, rows, sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import redis as redis_client
    from feast import FeatureStore

    from stream.domain.feature_row import IntentRow
    from stream.settings import Settings

__all__ = ["database", "settings"]


def by_feast(store: FeatureStore, view: View, keys: Sequence[str]) -> dict[str, list[Any]]:
    """Values and event times as Feast's store answers them."""
    names = [feature.name for feature in view.features]
    response = store.get_online_features(
        [f"{view.name}:{name}" for name in names], {view.join_key: list(keys)}
    )
    columns = response.to_dict()
    for feature in view.features:
        if feature.type is FieldType.UNIX_TIMESTAMP:
            columns[feature.name] = [
                one and round(one.replace(tzinfo=UTC).timestamp()) for one in columns[feature.name]
            ]
    times = response.proto.results[1].event_timestamps
    return {name: columns[name] for name in names} | {
        "at": [time.ToMilliseconds() for time in times]
    }


def by_us(settings: Settings, view: View, keys: Sequence[str]) -> dict[str, list[Any]]:
    names = tuple(feature.name for feature in view.features)
    (found,) = RedisSource(settings).read([Wanted(view, names, keys)])
    return {**found.columns, "at": found.events_ms}


def erase(settings: Settings, profile_id: str, erasure: Erasure) -> None:
    async def run() -> None:
        writer = IntentWriter(settings)
        await writer.start()
        await writer.erase({profile_id: erasure})
        await writer.close()

    asyncio.run(run())


@on_a_server
@given(st.lists(rows, min_size=1, max_size=4, unique_by=attrgetter("profile_id")))
def test_any_rows_and_profiles_without_any_are_read_as_feast_reads_them(
    settings: Settings, database: redis_client.Redis, batch: list[IntentRow]
) -> None:
    database.flushdb()
    write(settings, *batch)
    keys = [row.profile_id for row in batch]
    asked = [*keys, "nobody", keys[0]]
    expected = by_feast(stock_store(settings), profile_intent, asked)
    assert by_us(settings, profile_intent, asked) == expected


def test_an_erased_profile_is_read_as_feast_reads_it(settings: Settings) -> None:
    write(settings, SAMPLE, sample(profile_id="stays"))
    erase(settings, SAMPLE.profile_id, Erasure(SAMPLE.last_event_at_ms + 5, 0))
    erase(settings, "never was", Erasure(SAMPLE.last_event_at_ms + 7, 0))
    asked = [SAMPLE.profile_id, "stays", "never was"]
    expected = by_feast(stock_store(settings), profile_intent, asked)
    assert expected["sequence_no"] == [None, SAMPLE.sequence_no, None]
    assert by_us(settings, profile_intent, asked) == expected


@pytest.mark.parametrize("missing", ["labels_id", "title_log_norm", "genre_probs", "published_at"])
def test_a_row_of_a_release_without_a_feature_is_read_as_feast_reads_it(
    missing: str, settings: Settings, database: redis_client.Redis
) -> None:
    from features.online.redis_rows import feature_field

    write(settings, SAMPLE)
    (key,) = database.keys()
    assert database.hdel(key, feature_field(profile_intent.name, missing)) == 1
    expected = by_feast(stock_store(settings), profile_intent, [SAMPLE.profile_id])
    assert expected[missing] == [None]
    assert by_us(settings, profile_intent, [SAMPLE.profile_id]) == expected


def test_a_feature_that_another_release_wrote_as_another_type_is_told(
    settings: Settings, database: redis_client.Redis
) -> None:
    from features.online.encoding import string_value
    from features.online.redis_rows import feature_field

    write(settings, SAMPLE)
    (key,) = database.keys()
    database.hset(key, feature_field(profile_intent.name, "sequence_no"), string_value("17"))
    with pytest.raises(DefinitionsError, match="profile_intent:sequence_no"):
        IntentReader(settings).read([SAMPLE.profile_id])


@pytest.fixture
def titles(settings: Settings, tmp_path: Any) -> Settings:
    """Three titles, one of which has next to nothing, and the labels of the sample's version."""
    settings = settings.model_copy(update={"offline_dir": tmp_path})
    catalogue = pa.table(
        {
            "title_id": ["known", "bare", "old"],
            "genres": [["drama", "war"], [], ["comedy"]],
            "kind": ["movie", None, "show"],
            "release_day": pa.array([0, None, -20_000], pa.int32()),
        }
    )
    until = datetime(2020, 1, 1, tzinfo=UTC)
    vectors = {"known": [0.5, -1.0, 2.0], "old": [1.0, 0.0, 0.0]}
    publish_titles(settings, catalogue, vectors, SAMPLE.model_version, until)
    publish_labels(settings, SAMPLE.model_version, BUILT_IN)
    return settings


def test_titles_and_labels_are_read_as_feast_reads_them(titles: Settings) -> None:
    store = stock_store(titles)
    asked = ["known", "bare", "nowhere", "old", "known"]
    assert by_us(titles, title_profile, asked) == by_feast(store, title_profile, asked)
    versions = [SAMPLE.model_version, "none"]
    assert by_us(titles, model_labels, versions) == by_feast(store, model_labels, versions)


@pytest.mark.parametrize("profile_id", [SAMPLE.profile_id, "of another version", "nobody"])
def test_matches_are_those_of_feasts_on_demand_view(titles: Settings, profile_id: str) -> None:
    write(titles, SAMPLE, sample(profile_id="of another version", model_version="5"))
    ids = ["known", "tt2", "bare", "old", "nowhere"]
    store = stock_store(titles)
    expected = store.get_online_features(
        store.get_feature_service(SEARCH_RERANK),
        {"profile_id": [profile_id] * len(ids), "title_id": ids},
    ).to_dict()
    reranker = Reranker(titles, clock=lambda: SAMPLE.last_event_at_ms / 1000)
    answer = reranker.rerank(profile_id, [Candidate(one) for one in ids])
    read = {
        one.title_id: {reason.term: reason.value for reason in one.reasons}
        for one in answer.candidates
    }
    for place, title_id in enumerate(ids):
        wanted = {name: expected[name][place] for name in MATCHES}
        assert {name: read[title_id].get(name) for name in MATCHES} == wanted


SOURCES: list[Callable[[Settings], Any]] = [
    RedisSource,
    lambda settings: FeastSource(settings, RANKER),
]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_answers_alike_from_a_thread_and_from_a_loop(
    source: Callable[[Settings], Any], titles: Settings
) -> None:
    write(titles, SAMPLE)
    wanted = [
        Wanted(profile_intent, NAMES, [SAMPLE.profile_id, "nobody", SAMPLE.profile_id]),
        Wanted(title_profile, ("title_genres", "title_embedding"), ["bare", "known"]),
    ]

    async def from_a_loop() -> Any:
        opened = source(titles)
        found = await opened.read_async(wanted)
        await opened.close()
        return found

    expected = RedisSource(titles).read(wanted)
    assert [len(one.events_ms) for one in expected] == [3, 2]
    assert source(titles).read(wanted) == expected
    assert asyncio.run(from_a_loop()) == expected


def test_the_services_hold_what_is_read(settings: Settings) -> None:
    assert definitions.ranker_v1.name == RANKER
    assert definitions.search_rerank_v1.name == SEARCH_RERANK
