"""Which online stores are written to, and what is told of those without a fence."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from features.online.fence import Fence, fence_of
from features.online.inspection import inspector_of
from features.online.titles import publish_titles
from features.online.writer import IntentWriter
from features.reading.intents import Freshness
from features.reading.reader import IntentReader
from features.registry.store import check_online, open_store
from stream.domain.feature_row import Erasure
from stream.exceptions import InvalidSettingsError, StoreUnavailableError, UnfencedStoreError
from stream.settings import Settings
from tests.online_stores import PlainSqliteOnlineStore, configured
from tests.unit.features.samples import SAMPLE, sample

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

OLDER = sample(last_event_at_ms=SAMPLE.last_event_at_ms - 1000, model_version="older")
CATALOGUE = pa.table(
    {
        "title_id": ["tt1"],
        "genres": [["drama"]],
        "kind": ["movie"],
        "release_day": pa.array([0], pa.int32()),
    }
)


def named(home: Path, kind: str, **options: str) -> Settings:
    """Settings that name an online store by a file."""
    return Settings(
        online_store=configured(home, kind, **options),
        feature_registry=home / "registry.db",
        offline_dir=home,
    )


@pytest.fixture
def unfenced(tmp_path: Path) -> Settings:
    """A store that says nothing of a fence, and nobody has accepted that."""
    kind = f"{PlainSqliteOnlineStore.__module__}.{PlainSqliteOnlineStore.__name__}"
    return named(tmp_path, kind, path=str(tmp_path / "plain.db"))


@pytest.fixture
def accepted(unfenced: Settings) -> Settings:
    return unfenced.model_copy(update={"unfenced_store": True})


@pytest.fixture
def first_look(tmp_path: Path) -> Settings:
    return Settings(online_store="sqlite", feature_registry=tmp_path / "registry.db")


def with_writer(settings: Settings, use: Callable[[IntentWriter], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        writer = IntentWriter(settings)
        await writer.start()
        try:
            return await use(writer)
        finally:
            await writer.close()

    return asyncio.run(run())


def start(settings: Settings) -> None:
    async def nothing(writer: IntentWriter) -> None:
        pass

    with_writer(settings, nothing)


def titles(settings: Settings) -> None:
    publish_titles(settings, CATALOGUE, {}, "1", datetime.now(UTC))


# What is refused


@pytest.mark.parametrize("write", [start, titles, check_online])
def test_a_store_without_a_fence_is_not_written_to(
    write: Callable[[Settings], Any], unfenced: Settings, tmp_path: Path
) -> None:
    with pytest.raises(UnfencedStoreError) as failure:
        write(unfenced)
    told = str(failure.value)
    for said in ("PlainSqliteOnlineStore", "older", "docs/extending.md", "INTENT_UNFENCED_STORE"):
        assert said in told
    assert not (tmp_path / "plain.db").exists()
    assert not (tmp_path / "data").exists()


def test_feast_s_own_redis_store_has_no_fence(tmp_path: Path) -> None:
    with pytest.raises(UnfencedStoreError, match="RedisOnlineStore"):
        start(named(tmp_path, "redis"))


def test_our_redis_store_has_its_fence_wherever_it_is_named(tmp_path: Path) -> None:
    ours = named(tmp_path, "features.online.fenced_redis.FencedRedisOnlineStore")
    for settings in (ours, Settings(feature_registry=tmp_path / "registry.db")):
        assert fence_of(open_store(settings).provider.online_store) is Fence.KEPT
        assert inspector_of(settings) is not None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "project: intentstream\nprovider: local\nregistry: data/registry.db",
        "online_store: [",
        "online_store:\n  type: nosuchthing",
        "online_store:\n  type: nowhere.NoOnlineStore",
        "online_store:\n  type: redis\n  redis_type: unheard",
    ],
    ids=[
        "no file",
        "an empty file",
        "no store",
        "no YAML",
        "an unknown store",
        "no such class",
        "a wrong option",
    ],
)
def test_a_store_that_no_file_describes_is_told_by_the_setting(
    text: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "feature_store.yaml"
    if text is not None:
        path.write_text(text)
    settings = Settings(online_store=str(path), feature_registry=tmp_path / "registry.db")
    with pytest.raises(InvalidSettingsError, match="INTENT_ONLINE_STORE"):
        open_store(settings)


# What is accepted


def test_a_store_without_a_fence_is_written_to_when_that_is_accepted_and_the_log_says_so(
    accepted: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        with_writer(accepted, lambda writer: writer.write([SAMPLE]))
    assert IntentReader(accepted).read([SAMPLE.profile_id])[0].row is not None
    assert "no fence: older features may overwrite newer ones" in caplog.text


def test_of_rows_without_a_fence_nobody_knows_how_many_were_stale(accepted: Settings) -> None:
    async def use(writer: IntentWriter) -> list[int | None]:
        return [await writer.write([SAMPLE]), await writer.write([OLDER])]

    assert with_writer(accepted, use) == [None, None]
    assert IntentReader(accepted).read([SAMPLE.profile_id])[0].model_version == "older"


def test_of_one_write_without_a_fence_the_newest_row_stays(accepted: Settings) -> None:
    with_writer(accepted, lambda writer: writer.write([SAMPLE, OLDER]))
    row = IntentReader(accepted).read([SAMPLE.profile_id])[0].row
    assert row is not None
    assert row.model_version == SAMPLE.model_version


def test_a_profile_can_be_erased_without_a_fence(accepted: Settings) -> None:
    async def use(writer: IntentWriter) -> None:
        await writer.write([SAMPLE])
        await writer.erase({SAMPLE.profile_id: Erasure(SAMPLE.last_event_at_ms, 0)})

    with_writer(accepted, use)
    assert IntentReader(accepted).read([SAMPLE.profile_id])[0].freshness is Freshness.ABSENT


def test_titles_are_published_without_a_fence_when_that_is_accepted(accepted: Settings) -> None:
    titles(accepted)
    read = open_store(accepted).get_online_features(
        ["title_profile:title_kind"], {"title_id": ["tt1"]}
    )
    assert read.to_dict()["title_kind"] == ["movie"]


def test_an_error_of_a_store_that_nobody_knows_is_one_to_be_tried_again(
    accepted: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("throttled")

    monkeypatch.setattr(PlainSqliteOnlineStore, "online_write_batch", fail)
    with pytest.raises(StoreUnavailableError, match="throttled"):
        with_writer(accepted, lambda writer: writer.write([SAMPLE]))


def test_sqlite_needs_no_setting_and_the_log_says_that_it_has_no_fence(
    first_look: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(writer: IntentWriter) -> tuple[bool, int | None]:
        return writer.is_fenced, await writer.write([SAMPLE])

    with caplog.at_level(logging.WARNING):
        assert with_writer(first_look, use) == (False, None)
    assert "no fence: it keeps newer features as long as one worker" in caplog.text
    assert inspector_of(first_look) is None
