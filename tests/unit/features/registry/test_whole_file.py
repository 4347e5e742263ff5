"""The registry file: whole at any moment, and made by those who register something only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from feast import Entity, FeatureStore, ValueType

from features import definitions
from features.reading.reader import IntentReader
from features.registry.store import apply, open_store
from stream.exceptions import DefinitionsError
from stream.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

AT_ONCE = 4
ROUNDS = 4
NAMES = {
    one.name
    for one in (
        definitions.profile,
        definitions.title,
        definitions.profile_intent,
        definitions.title_profile,
        definitions.intent_title_match,
        definitions.ranker_v1,
        definitions.search_rerank_v1,
    )
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(feature_registry=tmp_path / "registry.db")


def registered(store: FeatureStore) -> set[str]:
    views = [*store.list_feature_views(), *store.list_on_demand_feature_views()]
    return {one.name for one in (*views, *store.list_feature_services(), *store.list_entities())}


def test_of_those_who_register_at_once_one_writes_and_each_finds_all(tmp_path: Path) -> None:
    def register(home: Path) -> tuple[str, set[str]]:
        settings = Settings(feature_registry=home / "registry.db")
        store = apply(settings)
        version = store.registry.proto().version_id
        return version, registered(store) & registered(open_store(settings))

    for number in range(ROUNDS):
        with ThreadPoolExecutor(AT_ONCE) as threads:
            found = list(threads.map(register, [tmp_path / str(number)] * AT_ONCE))
        assert len({version for version, _ in found}) == 1
        assert all(names >= NAMES for _, names in found)


def test_who_reads_the_registry_while_it_is_written_reads_the_old_one_whole(
    settings: Settings, tmp_path: Path
) -> None:
    store = apply(settings)
    registry = tmp_path / "registry.db"
    before = registry.read_bytes()
    with registry.open("rb") as reader:
        store.apply(Entity(name="another", value_type=ValueType.STRING))
        assert reader.read() == before
    assert "another" in registered(open_store(settings))


def test_a_reader_that_comes_first_leaves_no_empty_registry(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(DefinitionsError):
        IntentReader(settings.model_copy(update={"online_store": "sqlite"}))
    assert list(tmp_path.iterdir()) == []
