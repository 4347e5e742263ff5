from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.catalogue import read_catalogue
from stream.exceptions import CatalogueError
from stream.taxonomy import hash64

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.parquet"
    pq.write_table(pa.table({"title_id": ["t1"], "duration_s": [90.0]}), path)
    return path


@pytest.fixture
def secret(catalogue: Path) -> Iterator[Path]:
    """The catalogue, that this process may not read; root would."""
    catalogue.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield catalogue
    os.seteuid(user)


def test_a_catalogue_tells_ids_and_durations(catalogue: Path) -> None:
    read = read_catalogue(catalogue)
    assert read.title_id(hash64("t1")) == "t1"
    assert read.duration_ms == {hash64("t1"): 90_000}


def test_one_that_may_not_be_read_is_told_with_the_command_that_mends_it(secret: Path) -> None:
    with pytest.raises(CatalogueError, match=rf"INTENT_CATALOGUE={secret} .*`chmod a\+r`"):
        read_catalogue(secret)


def test_one_that_is_no_parquet_file_is_told(catalogue: Path) -> None:
    catalogue.write_text("title_id,duration_s")
    with pytest.raises(CatalogueError, match="is no Parquet file"):
        read_catalogue(catalogue)
