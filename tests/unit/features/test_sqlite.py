"""The store of a first look: no server, the same definitions, writer and reader."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest

from features.online.writer import IntentWriter
from features.reading.http_reader import HttpIntentReader
from features.reading.intents import Freshness
from features.reading.reader import IntentReader
from features.reading.rerank import Candidate, Order, Reranker
from features.registry.store import apply
from stream.exceptions import NotStartedError, StoreUnavailableError, TooManyProfilesError
from stream.settings import Settings
from tests.unit.features.samples import sample

if TYPE_CHECKING:
    from pathlib import Path

    from stream.domain.feature_row import IntentRow


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(online_store="sqlite", feature_registry=tmp_path / "registry.db")


def write(settings: Settings, *rows: IntentRow) -> int | None:
    async def run() -> int:
        writer = IntentWriter(settings)
        await writer.start()
        refused = await writer.write(rows)
        await writer.close()
        return refused

    return asyncio.run(run())


def test_a_row_written_to_sqlite_is_read_back(settings: Settings) -> None:
    write(settings, sample(profile_id="p-1"), sample(profile_id="p-2", sequence_no=4))
    intent = IntentReader(settings).read(["p-2"])[0]
    assert intent.row is not None
    assert intent.row.sequence_no == 4


def test_a_profile_without_features_is_absent_in_sqlite(settings: Settings) -> None:
    write(settings, sample())
    assert IntentReader(settings).read(["nobody"])[0].freshness is Freshness.ABSENT


def test_more_than_a_thousand_profiles_in_one_read_are_an_error(settings: Settings) -> None:
    write(settings, sample())
    reader = IntentReader(settings)
    assert len(reader.read(["p-1"] * 1_000)) == 1_000
    with pytest.raises(TooManyProfilesError, match="1,001 profiles"):
        reader.read(["p-1"] * 1_001)


def test_a_feature_server_that_does_not_run_raises_the_error_that_is_retried() -> None:
    with pytest.raises(StoreUnavailableError, match="feast serve"):
        HttpIntentReader("http://127.0.0.1:1").read(["p-1"])


def test_a_missing_sqlite_database_is_made_again_beside_a_whole_registry(
    settings: Settings, tmp_path: Path
) -> None:
    apply(settings)
    (tmp_path / "online.db").unlink()
    write(settings, sample())
    assert IntentReader(settings).read([sample().profile_id])[0].row is not None


def test_a_writer_that_was_not_started_says_so(settings: Settings) -> None:
    with pytest.raises(NotStartedError):
        asyncio.run(IntentWriter(settings).write([sample()]))


def test_an_unchanged_registry_is_not_written_again(tmp_path: Path) -> None:
    settings = Settings(feature_registry=tmp_path / "registry.db")
    apply(settings)
    before = (tmp_path / "registry.db").stat().st_mtime_ns
    apply(settings)
    assert (tmp_path / "registry.db").stat().st_mtime_ns == before


def test_a_password_is_in_no_repr_of_the_store(tmp_path: Path) -> None:
    settings = Settings(
        redis_url="127.0.0.1:1,password=open-sesame", feature_registry=tmp_path / "registry.db"
    )
    store = apply(settings)
    assert "open-sesame" not in f"{store!r} {store.config!r} {store.config.online_store!r}"


def test_a_store_without_an_asynchronous_client_is_read_and_re_ranked_from_a_loop_too(
    settings: Settings,
) -> None:
    write(settings, sample())
    profile_id, found = sample().profile_id, [Candidate("tt1"), Candidate("tt2")]
    reader, reranker = IntentReader(settings, math.inf), Reranker(settings, fresh_for_s=math.inf)

    async def answers() -> tuple[list[IntentRow | None], Order]:
        return (
            [one.row for one in await reader.read_async([profile_id])],
            (await reranker.rerank_async(profile_id, found)).order,
        )

    rows, order = asyncio.run(answers())
    assert rows == [reader.read([profile_id])[0].row]
    assert rows[0] is not None
    assert order is Order.INTENT
