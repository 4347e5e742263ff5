"""The fenced writer and store on a real Redis: Feast's bytes, the fence, reading back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import redis as redis_client
from feast import FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float32
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from features import definitions
from features.online.feast_rows import to_protos
from features.online.fenced_writes import ROWS_PER_CALL, ROWS_PER_TRIP
from features.online.writer import IntentWriter
from features.reading.intents import Freshness
from features.reading.reader import IntentReader
from features.registry.store import apply, open_store
from features.schema import views
from stream.domain.feature_row import Erasure
from stream.exceptions import StoreRefusedError, StoreUnavailableError
from stream.settings import Settings
from tests.unit.features.samples import SAMPLE, changed, rows, sample

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from stream.domain.feature_row import IntentRow

on_a_server = hypothesis_settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def database(redis: str) -> Iterator[redis_client.Redis]:
    """An empty database of the shared server."""
    host, port = redis.split(":")
    with redis_client.Redis(host=host, port=int(port), db=7) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture
def settings(redis: str, database: redis_client.Redis, tmp_path: Path) -> Settings:
    return Settings(redis_url=f"{redis},db=7", feature_registry=tmp_path / "registry.db")


def with_writer(settings: Settings, use: Callable[[IntentWriter], Awaitable[int]]) -> int:
    async def run() -> int:
        writer = IntentWriter(settings)
        await writer.start()
        try:
            return await use(writer)
        finally:
            await writer.close()

    return asyncio.run(run())


def write(settings: Settings, *rows: IntentRow) -> int:
    return with_writer(settings, lambda writer: writer.write(rows))


def stock_store(settings: Settings) -> FeatureStore:
    """Feast's own Redis store on the same database and registry."""
    ours = apply(settings)
    return FeatureStore(
        config=RepoConfig(
            project=ours.project,
            registry=ours.config.registry,
            online_store=RedisOnlineStoreConfig(
                connection_string=settings.redis_url.get_secret_value()
            ),
            entity_key_serialization_version=3,
        )
    )


def frame(row: IntentRow) -> pd.DataFrame:
    """One row as a user hands it to Feast."""
    at = pd.to_datetime(row.last_event_at_ms, unit="ms", utc=True)
    published = pd.to_datetime(row.published_at_ms, unit="ms", utc=True)
    values: dict[str, Any] = {
        feature.name: row.published()[feature.row_field]
        for feature in views.profile_intent.features
    }
    values |= {"last_event_at": at, "published_at": published}
    row_of_feast = {"event_timestamp": at, "created_timestamp": published, **values}
    return pd.DataFrame([{"profile_id": row.profile_id, **row_of_feast}])


def contents(database: redis_client.Redis) -> dict[bytes, dict[bytes, bytes]]:
    return {key: database.hgetall(key) for key in database.scan_iter()}


# What Feast itself writes


@pytest.mark.parametrize(
    "row",
    [
        SAMPLE,
        sample(genre_probs=[], genre="", next_title_ids=[], next_title_scores=[]),
        sample(session_length=0, sequence_no=2**62, intent_cluster=5, last_event_at_ms=1_000),
    ],
    ids=["a full row", "masked heads", "extreme numbers"],
)
def test_a_written_row_is_byte_for_byte_what_feast_writes(
    row: IntentRow, settings: Settings, database: redis_client.Redis
) -> None:
    stock_store(settings).write_to_online_store("profile_intent", frame(row))
    feasts = contents(database)
    database.flushdb()
    write(settings, row)
    assert contents(database) == feasts


@on_a_server
@given(row=rows)
def test_any_row_is_byte_for_byte_what_feasts_store_writes_of_its_protos(
    row: IntentRow, settings: Settings, database: redis_client.Redis
) -> None:
    stock = stock_store(settings)
    database.flushdb()
    stock.provider.online_write_batch(
        stock.config, definitions.profile_intent, [to_protos(row)], None
    )
    feasts = contents(database)
    database.flushdb()
    write(settings, row)
    assert contents(database) == feasts


def test_feasts_write_through_the_fenced_store_leaves_the_same_bytes(
    settings: Settings, database: redis_client.Redis
) -> None:
    stock_store(settings).write_to_online_store("profile_intent", frame(SAMPLE))
    feasts = contents(database)
    database.flushdb()
    open_store(settings).write_to_online_store("profile_intent", frame(SAMPLE))
    assert contents(database) == feasts


def test_feasts_async_write_through_the_fenced_store_leaves_the_same_bytes(
    settings: Settings, database: redis_client.Redis
) -> None:
    stock_store(settings).write_to_online_store("profile_intent", frame(SAMPLE))
    feasts = contents(database)
    database.flushdb()

    async def push() -> None:
        store = open_store(settings)
        await store.write_to_online_store_async("profile_intent", frame(SAMPLE))
        await store.close()

    asyncio.run(push())
    assert contents(database) == feasts


def test_features_read_through_both_stores_are_the_same(settings: Settings) -> None:
    stock = stock_store(settings)
    write(settings, sample(profile_id="a"), sample(profile_id="b", genre_probs=[], genre=""))
    asked = {"profile_id": ["b", "nobody", "a", "b"]}
    ours = open_store(settings).get_online_features(definitions.ranker_v1, asked)
    feasts = stock.get_online_features(definitions.ranker_v1, asked)
    assert ours.to_dict(include_event_timestamps=True) == feasts.to_dict(
        include_event_timestamps=True
    )
    by_name = dict(zip(ours.proto.metadata.feature_names.val, ours.proto.results, strict=True))
    for name, vector in zip(
        feasts.proto.metadata.feature_names.val, feasts.proto.results, strict=True
    ):
        assert by_name[name] == vector


def test_features_with_full_names_are_the_same_through_both_stores(settings: Settings) -> None:
    stock = stock_store(settings)
    write(settings, SAMPLE)
    references = ["profile_intent:genre", "profile_intent:user_embedding"]
    asked = [{"profile_id": SAMPLE.profile_id}]
    ours = open_store(settings).get_online_features(references, asked, full_feature_names=True)
    feasts = stock.get_online_features(references, asked, full_feature_names=True)
    assert ours.to_dict() == feasts.to_dict()


# The fence


@pytest.mark.parametrize(
    ("change", "wins"),
    [
        ({"last_event_at_ms": SAMPLE.last_event_at_ms - 1, "sequence_no": 99}, False),
        ({"last_event_at_ms": SAMPLE.last_event_at_ms + 1, "sequence_no": 1}, True),
        ({"sequence_no": SAMPLE.sequence_no - 1}, False),
        ({"sequence_no": SAMPLE.sequence_no + 1}, True),
        ({}, True),
    ],
    ids=[
        "an older event is refused",
        "a newer event wins",
        "at the same event a lower sequence is refused",
        "at the same event a higher sequence wins",
        "the equal overwrites",
    ],
)
def test_a_second_row_is_fenced(change: dict[str, int], wins: bool, settings: Settings) -> None:
    second = sample(model_version="second", **change)
    assert write(settings, SAMPLE) == 0
    assert write(settings, second) == (0 if wins else 1)
    version = IntentReader(settings).read([SAMPLE.profile_id])[0].model_version
    assert version == ("second" if wins else SAMPLE.model_version)


def test_a_refused_row_changes_no_byte(settings: Settings, database: redis_client.Redis) -> None:
    write(settings, SAMPLE)
    before = contents(database)
    older = SAMPLE.last_event_at_ms - 1
    write(settings, sample(last_event_at_ms=older, genre="war", next_title_ids=[]))
    assert contents(database) == before


def test_a_row_of_feasts_own_store_fences_too(settings: Settings) -> None:
    stock_store(settings).write_to_online_store("profile_intent", frame(SAMPLE))
    assert write(settings, sample(sequence_no=SAMPLE.sequence_no - 1)) == 1
    assert write(settings, sample(sequence_no=SAMPLE.sequence_no)) == 0


def test_of_many_rows_each_is_fenced_on_its_own(settings: Settings) -> None:
    count = 2 * ROWS_PER_TRIP + ROWS_PER_CALL + 1
    first = [sample(profile_id=f"p-{n}") for n in range(count)]
    second = [
        changed(row, last_event_at_ms=row.last_event_at_ms + (1 if n % 2 else -1), genre="war")
        for n, row in enumerate(first)
    ]
    write(settings, *first)
    assert write(settings, *second) == (count + 1) // 2
    read = IntentReader(settings).read([row.profile_id for row in first])
    genres = [intent.row.labels["genre"] for intent in read if intent.row]
    assert genres == ["war" if n % 2 else SAMPLE.labels["genre"] for n in range(count)]


@on_a_server
@given(data=st.data())
def test_two_racing_writers_always_leave_the_newest(
    data: st.DataObject, settings: Settings, database: redis_client.Redis
) -> None:
    database.flushdb()
    order = st.tuples(st.integers(0, 2000), st.integers(1, 5))
    places = data.draw(st.lists(order, min_size=2, max_size=40, unique=True))
    versions = [
        sample(last_event_at_ms=at, sequence_no=sequence, last_event_id=f"e-{at}-{sequence}")
        for at, sequence in places
    ]
    split = data.draw(st.integers(1, len(versions) - 1))

    async def race() -> None:
        async def one(part: Sequence[IntentRow]) -> None:
            writer = IntentWriter(settings)
            await writer.start()
            await asyncio.gather(*(writer.write([row]) for row in part))
            await writer.close()

        await asyncio.gather(one(versions[:split]), one(versions[split:]))

    asyncio.run(race())
    newest = max(places)
    read = IntentReader(settings).read([SAMPLE.profile_id])[0].row
    assert read is not None
    assert (read.last_event_at_ms, read.sequence_no) == newest
    assert read.last_event_id == f"e-{newest[0]}-{newest[1]}"


# Erasure


def erase(settings: Settings, at_ms: int, newest_ms: int = 0) -> None:
    async def use(writer: IntentWriter) -> int:
        await writer.erase({SAMPLE.profile_id: Erasure(at_ms, newest_ms)})
        return 0

    with_writer(settings, use)


def freshness(settings: Settings) -> Freshness:
    return IntentReader(settings).read([SAMPLE.profile_id])[0].freshness


def test_no_feature_of_an_erased_profile_is_left(
    settings: Settings, database: redis_client.Redis
) -> None:
    write(settings, SAMPLE)
    erase(settings, SAMPLE.last_event_at_ms + 1)
    (fields,) = contents(database).values()
    assert fields.pop(b"_ts:profile_intent")
    assert set(fields.values()) == {b""}
    assert freshness(settings) is Freshness.ABSENT


def test_features_of_an_event_with_a_clock_ahead_of_the_erasure_go_too(settings: Settings) -> None:
    write(settings, sample(last_event_at_ms=SAMPLE.last_event_at_ms + 1000))
    erase(settings, SAMPLE.last_event_at_ms)
    assert freshness(settings) is Freshness.ABSENT


def test_features_of_events_that_were_erased_though_they_came_later_go_too(
    settings: Settings,
) -> None:
    hour_later_ms = SAMPLE.last_event_at_ms + 3_600_000
    write(settings, sample(last_event_at_ms=hour_later_ms))
    erase(settings, SAMPLE.last_event_at_ms)
    assert freshness(settings) is Freshness.STALE
    erase(settings, SAMPLE.last_event_at_ms, newest_ms=hour_later_ms)
    assert freshness(settings) is Freshness.ABSENT


def test_what_was_under_way_when_a_profile_was_erased_does_not_come_back(
    settings: Settings,
) -> None:
    erase(settings, SAMPLE.last_event_at_ms + 1)
    assert write(settings, SAMPLE) == 1
    assert freshness(settings) is Freshness.ABSENT


def test_an_erasure_that_comes_late_leaves_what_is_much_newer(settings: Settings) -> None:
    write(settings, SAMPLE)
    erase(settings, SAMPLE.last_event_at_ms - settings.max_ahead_s * 1000 - 1)
    assert freshness(settings) is Freshness.STALE


def test_an_erased_profile_has_features_again_after_its_next_event(settings: Settings) -> None:
    erase(settings, SAMPLE.last_event_at_ms - 1)
    assert write(settings, SAMPLE) == 0
    assert freshness(settings) is Freshness.STALE


def test_an_erased_profile_is_absent_in_sqlite_too(tmp_path: Path) -> None:
    first_look = Settings(online_store="sqlite", feature_registry=tmp_path / "registry.db")
    write(first_look, SAMPLE)
    assert freshness(first_look) is Freshness.STALE
    erase(first_look, SAMPLE.last_event_at_ms + 1)
    assert freshness(first_look) is Freshness.ABSENT


plain_view = FeatureView(
    name="plain",
    entities=[definitions.profile],
    schema=[Field(name="score", dtype=Float32)],
    source=FileSource(name="plain", path="data/plain", timestamp_field="event_timestamp"),
)


@on_a_server
@given(
    first=st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    second=st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
)
@example(first=datetime(1969, 12, 31, 23, 59, 59, 999_999), second=datetime(1970, 1, 1))
def test_a_view_without_a_sequence_is_fenced_by_event_time_alone(
    first: datetime, second: datetime, settings: Settings, database: redis_client.Redis
) -> None:
    database.flushdb()
    store = open_store(settings)
    key = EntityKey(join_keys=["profile_id"], entity_values=[Value(string_val="p")])
    for score, at in ((1.0, first), (2.0, second)):
        values = {"score": Value(float_val=score)}
        store.provider.online_write_batch(
            store.config, plain_view, [(key, values, at.replace(tzinfo=UTC), None)], None
        )
    _, values = store.provider.online_store.online_read(store.config, plain_view, [key])[0]
    assert values["score"].float_val == (2.0 if second >= first else 1.0)


def test_a_row_without_a_time_to_live_stays(
    settings: Settings, database: redis_client.Redis
) -> None:
    write(settings, SAMPLE)
    assert [database.ttl(key) for key in database.scan_iter()] == [-1]


def test_a_row_expires_after_the_time_to_live_of_the_settings(
    settings: Settings, database: redis_client.Redis
) -> None:
    write(settings.model_copy(update={"feature_ttl_s": 100}), SAMPLE)
    assert [0 < database.ttl(key) <= 100 for key in database.scan_iter()] == [True]


def test_a_row_that_is_written_after_the_time_to_live_was_taken_back_stays(
    settings: Settings, database: redis_client.Redis
) -> None:
    write(settings.model_copy(update={"feature_ttl_s": 100}), SAMPLE)
    write(settings, SAMPLE)
    assert [database.ttl(key) for key in database.scan_iter()] == [-1]


def test_a_server_that_lost_the_script_takes_the_next_write(
    settings: Settings, database: redis_client.Redis
) -> None:
    async def use(writer: IntentWriter) -> int:
        await writer.write([SAMPLE])
        database.script_flush()
        return await writer.write([SAMPLE])

    assert with_writer(settings, use) == 0


# Failures


def test_a_server_that_is_down_raises_the_error_that_is_retried(tmp_path: Path) -> None:
    settings = Settings(
        redis_url="127.0.0.1:1,password=open-sesame", feature_registry=tmp_path / "registry.db"
    )
    with pytest.raises(StoreUnavailableError) as failure:
        write(settings, SAMPLE)
    assert "open-sesame" not in str(failure.value)


def test_a_server_that_is_down_is_told_to_a_reader_too(tmp_path: Path) -> None:
    settings = Settings(redis_url="127.0.0.1:1", feature_registry=tmp_path / "registry.db")
    apply(settings)
    with pytest.raises(StoreUnavailableError):
        IntentReader(settings).read([SAMPLE.profile_id])


def test_a_key_of_another_type_raises_the_error_for_an_operator(
    settings: Settings, database: redis_client.Redis
) -> None:
    write(settings, SAMPLE)
    key = next(database.scan_iter())
    database.delete(key)
    database.set(key, b"not a hash")
    with pytest.raises(StoreRefusedError) as failure:
        write(settings, SAMPLE)
    assert SAMPLE.profile_id not in str(failure.value)


def test_a_user_without_rights_raises_the_error_for_an_operator(
    settings: Settings, database: redis_client.Redis
) -> None:
    database.acl_setuser("reader", enabled=True, passwords=["+open-sesame"], commands=["+hmget"])
    url = f"{settings.redis_url.get_secret_value()},username=reader,password=open-sesame"
    try:
        with pytest.raises(StoreRefusedError) as failure:
            write(settings.model_copy(update={"redis_url": type(settings.redis_url)(url)}), SAMPLE)
    finally:
        database.acl_deluser("reader")
    assert "open-sesame" not in str(failure.value)


# The reader


def reader_at(settings: Settings, milliseconds: int, fresh_for_s: float = 60) -> IntentReader:
    return IntentReader(settings, fresh_for_s, clock=lambda: milliseconds / 1000)


def test_a_row_is_read_back_as_it_was_written(settings: Settings) -> None:
    row = sample(
        action_probs=[0.5, 0.25],
        genre_probs=[],
        genre="",
        kind_probs=[1.0],
        release_age_probs=[],
        intent_embedding=[0.5],
        published_at_ms=1_700_000_001_000,
    )
    write(settings, row)
    assert IntentReader(settings).read([row.profile_id])[0].row == row


def test_a_recent_row_is_fresh_and_has_its_age_to_the_millisecond(settings: Settings) -> None:
    write(settings, SAMPLE)
    intent = reader_at(settings, SAMPLE.last_event_at_ms + 1_234).read([SAMPLE.profile_id])[0]
    assert (intent.freshness, intent.age_ms) == (Freshness.FRESH, 1_234)


def test_a_row_older_than_the_limit_is_stale(settings: Settings) -> None:
    write(settings, SAMPLE)
    later = SAMPLE.last_event_at_ms + int(timedelta(seconds=61) / timedelta(milliseconds=1))
    assert reader_at(settings, later).read([SAMPLE.profile_id])[0].freshness is Freshness.STALE


def test_an_unknown_profile_is_absent_with_neither_age_nor_version(settings: Settings) -> None:
    apply(settings)
    intent = IntentReader(settings).read(["nobody"])[0]
    assert (intent.freshness, intent.age_ms, intent.row, intent.model_version) == (
        Freshness.ABSENT,
        None,
        None,
        None,
    )


def test_a_batch_answers_in_the_order_asked_even_for_a_profile_asked_twice(
    settings: Settings,
) -> None:
    write(settings, *(sample(profile_id=f"p-{n}", sequence_no=n + 1) for n in range(3)))
    read = IntentReader(settings).read(["p-2", "p-0", "nobody", "p-2"])
    assert [intent.row and intent.row.sequence_no for intent in read] == [3, 1, None, 3]


def test_the_async_reader_answers_the_same(settings: Settings) -> None:
    write(settings, SAMPLE)
    ids = [SAMPLE.profile_id, "nobody"]
    reader = reader_at(settings, SAMPLE.last_event_at_ms)

    async def read() -> object:
        try:
            return await reader.read_async(ids)
        finally:
            await reader.close()

    assert asyncio.run(read()) == reader.read(ids)


def test_no_profiles_need_no_answer(settings: Settings) -> None:
    apply(settings)
    assert IntentReader(settings).read([]) == []
