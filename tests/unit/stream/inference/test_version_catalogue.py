from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.domain.catalogue import CATALOGUE_FILE
from stream.domain.labels import hash64
from stream.exceptions import CatalogueError
from stream.inference.version_catalogue import catalogue_of
from stream.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a model repository in which version 7 carries one title."""
    folder = tmp_path / "models" / "fm_intent" / "7"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"title_id": ["a"], "duration_s": [60.0]}), folder / CATALOGUE_FILE)
    return Settings(triton_models=tmp_path / "models")


def test_the_titles_are_those_that_the_version_carries(settings: Settings) -> None:
    found = catalogue_of(settings, "7")
    assert found.title_ids == {hash64("a"): "a"}
    assert found.durations.ms == {hash64("a"): 60_000}


def test_the_file_that_the_setting_names_comes_first(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table({"title_id": ["b"], "duration_s": [None]}), path)
    own = settings.model_copy(update={"catalogue": path})
    assert catalogue_of(own, "7").title_ids == {hash64("b"): "b"}


def test_a_file_that_the_setting_names_and_that_is_not_there_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    gone = settings.model_copy(update={"catalogue": tmp_path / "gone.parquet"})
    with pytest.raises(CatalogueError, match=r"gone\.parquet"):
        catalogue_of(gone, "7")


@pytest.mark.parametrize(
    ("version", "why"), [("8", "catalogue.parquet"), ("", "no model version was made live yet")]
)
def test_where_there_is_none_nothing_is_known_and_one_line_tells_why(
    settings: Settings, version: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not catalogue_of(settings, version).title_ids
    (told,) = caplog.messages
    assert why in told
    assert "\n" not in told
    assert "INTENT_TRITON_MODELS" in told
    assert "INTENT_CATALOGUE" in told
