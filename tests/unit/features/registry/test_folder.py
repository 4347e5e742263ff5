"""The folder that Feast's command line runs in, where there is no checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from feast.repo_operations import parse_repo

from features import definitions
from features.registry.folder import write_repository
from stream.exceptions import RepositoryExistsError
from tests.checkout import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


def test_feast_finds_in_it_the_definitions_of_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repository(tmp_path / "new" / "features")
    monkeypatch.chdir(tmp_path / "new" / "features")
    monkeypatch.syspath_prepend(tmp_path / "new" / "features")
    found = parse_repo(tmp_path / "new" / "features")
    kinds = (*found.projects, *found.entities, *found.data_sources, *found.feature_views)
    read = [*kinds, *found.on_demand_feature_views, *found.feature_services]
    assert {one.name for one in read} >= {one.name for one in definitions.OBJECTS}
    assert definitions.project in read


def test_its_configurations_are_those_of_a_checkout(tmp_path: Path) -> None:
    write_repository(tmp_path)
    for name in ("feature_store.yaml", "feature_store_sqlite.yaml"):
        assert (tmp_path / name).read_text() == (REPOSITORY / "features" / name).read_text()


def test_one_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: mine\n")
    with pytest.raises(RepositoryExistsError, match=r"feature_store\.yaml"):
        write_repository(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["feature_store.yaml"]
    assert (tmp_path / "feature_store.yaml").read_text() == "project: mine\n"
