from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.domain.catalogue import Catalogue, read_catalogue
from stream.domain.labels import hash64
from stream.domain.rules import Durations
from stream.exceptions import CatalogueError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.parquet"
    pq.write_table(pa.table({"title_id": ["t1"], "duration_s": [90.0]}), path)
    return path


@contextmanager
def not_root() -> Iterator[None]:
    """Root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_catalogue_tells_ids_and_durations(catalogue: Path) -> None:
    read = read_catalogue(catalogue)
    assert read.ids_of(np.array([[hash64("t1"), 2]])) == [["t1", "xxh3:0000000000000002"]]
    assert read.durations.ms == {hash64("t1"): 90_000}


HASHES = st.sampled_from([-(2**63), -5, -1, 0, 1, 7, 2**63 - 1])


@given(
    st.dictionaries(HASHES, st.sampled_from(["", "a", "b"])),
    st.dictionaries(HASHES, st.sampled_from(["c", "d"])),
    st.lists(st.lists(HASHES, min_size=3, max_size=3), min_size=1, max_size=4),
)
def test_each_title_has_the_newest_id_that_is_known_or_its_hash(first, newer, asked) -> None:
    known = Catalogue(dict(first))
    for ids in (first, first | newer):
        assert known.ids_of(np.array(asked, np.int64)) == [
            [ids.get(one) or f"xxh3:{one & (2**64 - 1):016x}" for one in row] for row in asked
        ]
        known.take(Catalogue(newer))


def test_a_newer_one_is_taken_in_place_and_what_it_lacks_stays_known(catalogue: Path) -> None:
    known = read_catalogue(catalogue)
    names, durations = known.title_ids, known.durations
    known.take(Catalogue({2: "t2"}, Durations({2: 60_000, hash64("t1"): 80_000})))
    assert names == {hash64("t1"): "t1", 2: "t2"}
    assert durations.ms == {hash64("t1"): 80_000, 2: 60_000}


def test_one_that_may_not_be_read_is_told_with_the_command_that_mends_it(catalogue: Path) -> None:
    catalogue.chmod(0)
    told = rf"the catalogue {catalogue} .*`chmod a\+r`"
    with pytest.raises(CatalogueError, match=told), not_root():
        read_catalogue(catalogue)


def test_one_that_is_no_parquet_file_is_told(catalogue: Path) -> None:
    catalogue.write_text("title_id,duration_s")
    with pytest.raises(CatalogueError, match="is no Parquet file"):
        read_catalogue(catalogue)
