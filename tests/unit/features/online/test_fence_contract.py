"""The contract of a fenced online store: who keeps it passes, who breaks it is found out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from feast.infra.online_stores.sqlite import SqliteOnlineStore

from features.online.feast_rows import to_protos
from features.online.fence_contract import OnlineStoreContract
from stream.settings import Settings
from tests import online_stores
from tests.online_stores import FencedSqliteOnlineStore, configured, is_older

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from feast import FeatureView, RepoConfig

    from features.online.feast_rows import FeastRow
    from stream.domain.feature_row import Erasure
    from tests.online_stores import Place


def stored_in(home: Path, database: Path) -> Settings:
    return Settings(
        online_store=configured(
            home, "tests.online_stores.FencedSqliteOnlineStore", path=str(database)
        ),
        feature_registry=home / "registry.db",
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return stored_in(tmp_path, tmp_path / "online.db")


class TestFencedSqliteOnlineStore(OnlineStoreContract):
    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Settings:
        return stored_in(tmp_path, tmp_path)


# What the contract finds out

erase_intents = FencedSqliteOnlineStore.erase_intents
compare_and_write = FencedSqliteOnlineStore._compare_and_write


def takes_everything(_: Any, stored: Place, compared: Place) -> bool:
    return False


def refuses_the_equal(_: Any, stored: Place, compared: Place) -> bool:
    return not is_older(stored, compared)


def goes_by_time_alone(_: Any, stored: Place, compared: Place) -> bool:
    return compared[0] < stored[0]


def goes_by_the_sequence_alone(_: Any, stored: Place, compared: Place) -> bool:
    return is_older((0, compared[1]), (0, stored[1]))


def goes_by_seconds(_: Any, stored: Place, compared: Place) -> bool:
    seconds = [(place[0] // 1_000_000, place[1]) for place in (compared, stored)]
    return is_older(*seconds)


def compares_slowly(_: Any, stored: Place, compared: Place) -> bool:
    time.sleep(0.001)
    return is_older(compared, stored)


def writes_halves(store: Any, config: RepoConfig, view: FeatureView, rows: list[FeastRow]) -> int:
    halves = [
        [(key, dict([*values.items()][half::2]), at, created) for key, values, at, created in rows]
        for half in range(2)
    ]
    compare_and_write(store, config, view, halves[0])
    time.sleep(0.002)
    return compare_and_write(store, config, view, halves[1])


async def forgets_without_a_trace(
    store: FencedSqliteOnlineStore,
    config: RepoConfig,
    erasures: Mapping[str, Erasure],
    ahead_ms: int,
) -> None:
    longest_ago = {one: erasure._replace(at_ms=0) for one, erasure in erasures.items()}
    await erase_intents(store, config, longest_ago, 10**13)


async def erases_only_what_is_older(
    store: FencedSqliteOnlineStore,
    config: RepoConfig,
    erasures: Mapping[str, Erasure],
    ahead_ms: int,
) -> None:
    await erase_intents(store, config, erasures, 0)


async def erases_no_later_event(
    store: FencedSqliteOnlineStore,
    config: RepoConfig,
    erasures: Mapping[str, Erasure],
    ahead_ms: int,
) -> None:
    without = {one: erasure._replace(newest_ms=0) for one, erasure in erasures.items()}
    await erase_intents(store, config, without, ahead_ms)


def leaves_a_feature_out(row: Any) -> Any:
    key, values, at, created = to_protos(row)
    return key, {name: one for name, one in values.items() if name != "session_id"}, at, created


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "takes whatever comes last": (
        {"_refuses": takes_everything},
        "test_a_row_of_an_older_event_is_refused",
    ),
    "refuses the equal": (
        {"_refuses": refuses_the_equal},
        "test_an_equal_row_replaces_the_stored_one",
    ),
    "goes by the time alone": (
        {"_refuses": goes_by_time_alone},
        "test_at_one_time_a_lower_sequence_is_refused",
    ),
    "goes by the sequence alone": (
        {"_refuses": goes_by_the_sequence_alone},
        "test_a_row_of_a_newer_event_replaces_the_stored_one",
    ),
    "goes by whole seconds": (
        {"_refuses": goes_by_seconds},
        "test_times_are_compared_to_the_millisecond",
    ),
    "compares first and writes then": (
        {"_refuses": compares_slowly, "_begin": lambda *_: None},
        "test_of_racing_writers_the_newest_row_stays",
    ),
    "writes a row bit by bit": (
        {"_compare_and_write": writes_halves},
        "test_no_reader_sees_a_row_go_back_or_half_written",
    ),
    "compares first and writes then, and a profile is erased": (
        {"_refuses": compares_slowly, "_begin": lambda *_: None},
        "test_a_profile_that_is_erased_amid_writes_stays_erased",
    ),
    "forgets that a profile was erased": (
        {"erase_intents": forgets_without_a_trace},
        "test_what_was_under_way_when_a_profile_was_erased_is_refused",
    ),
    "erases only what is older": (
        {"erase_intents": erases_only_what_is_older},
        "test_an_erasure_takes_what_a_clock_ahead_has_dated_behind_it",
    ),
    "erases no later event": (
        {"erase_intents": erases_no_later_event},
        "test_an_erasure_takes_the_newest_event_that_it_covers",
    ),
    "has no fence in Feast's own write": (
        {"online_write_batch": SqliteOnlineStore.online_write_batch},
        "test_feast_s_own_write_is_refused_where_it_is_older",
    ),
}


@pytest.mark.parametrize(("fault", "test"), FAULTS.values(), ids=FAULTS)
def test_a_store_that_breaks_the_contract_is_found_out(
    fault: dict[str, Any], test: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, broken in fault.items():
        monkeypatch.setattr(FencedSqliteOnlineStore, name, broken)
    with pytest.raises(AssertionError):
        getattr(OnlineStoreContract(), test)(settings)


def test_a_store_that_leaves_a_feature_out_is_found_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_stores, "to_protos", leaves_a_feature_out)
    with pytest.raises(AssertionError):
        OnlineStoreContract().test_feast_reads_to_the_byte_what_its_own_write_would_have_put_there(
            settings
        )


def test_a_store_without_a_fence_does_not_pass(tmp_path: Path) -> None:
    first_look = Settings(online_store="sqlite", feature_registry=tmp_path / "registry.db")
    with pytest.raises(AssertionError):
        OnlineStoreContract().test_a_store_without_a_fence_can_not_pass(first_look)
