"""MovieTweetings 100K, which this package carries (MIT licence, see the note beside the data)."""

from __future__ import annotations

import gzip
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from fm_intent.data.sources.published import lay_films, lay_ratings
from stream.exceptions import UnexpectedDataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DATA: Final = files("fm_intent.data.sources").joinpath("carried", "movietweetings-100k")
RATINGS: Final = 100_000

_RATINGS: Final = "ratings.dat.gz"
_TITLES: Final = "movies.dat.gz"

_YEAR: Final = re.compile(r"\((\d{4})\)$")


def sha256() -> str:
    """Digest of what this package carries of it."""
    files_read = (DATA.joinpath(name).read_bytes() for name in (_RATINGS, _TITLES))
    return hashlib.sha256(b"".join(files_read)).hexdigest()


def lay(directory: Path) -> None:
    """Lay the ratings and the films of MovieTweetings 100K into a source's folder.

    Titles are numbers of IMDb, and get its `tt` before them.

    Raises:
        UnexpectedDataError: when the files do not hold the known number of ratings, or a film has
            no year.
    """
    users, rated, _, times = zip(*_read(_RATINGS), strict=True)
    titles, names, genres = zip(*_read(_TITLES), strict=True)
    years = [int(match[1]) for name in names if (match := _YEAR.search(name))]
    if len(users) != RATINGS:
        raise UnexpectedDataError(f"{DATA} has {len(users):,} ratings instead of {RATINGS:,}")
    if len(years) != len(names):
        raise UnexpectedDataError(f"a film in {DATA} has no release year in its name")
    lay_ratings(directory, pa.array(users), _imdb(rated), np.array(times, dtype=np.int64))
    lay_films(directory, _imdb(titles), pa.array(names), pa.array(genres), years)


def _imdb(numbers: Iterable[str]) -> pa.Array:
    return pa.array([f"tt{number}" for number in numbers])


def _read(name: str) -> list[list[str]]:
    with DATA.joinpath(name).open("rb") as file, gzip.open(file, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n").split("::") for line in lines]
