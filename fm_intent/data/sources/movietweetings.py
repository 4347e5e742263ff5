"""MovieTweetings 100K, which this package carries (MIT licence, see the note beside the data)."""

from __future__ import annotations

import gzip
import hashlib
import re
from importlib.resources import files
from typing import Final

import numpy as np
import pyarrow as pa

from fm_intent.data import contract
from fm_intent.data.sources.ratings import events_from_ratings, release_days
from stream.exceptions import UnexpectedDataError

DATA: Final = files("fm_intent.data.sources").joinpath("carried", "movietweetings-100k")
RATINGS: Final = 100_000

_RATINGS: Final = "ratings.dat.gz"
_TITLES: Final = "movies.dat.gz"

_GENRES: Final = {"Family": "children"}
"""Genres whose name here is more than the lower case of IMDb's."""

_UNMAPPED: Final = frozenset({"News", "Adult", ""})
"""IMDb genres (19 titles) that our vocabulary has no counterpart for."""

_YEAR: Final = re.compile(r"\((\d{4})\)$")


def sha256() -> str:
    """Digest of what this package carries of it."""
    files_read = (DATA.joinpath(name).read_bytes() for name in (_RATINGS, _TITLES))
    return hashlib.sha256(b"".join(files_read)).hexdigest()


def convert() -> tuple[pa.Table, pa.Table]:
    """The catalogue and the events of MovieTweetings 100K.

    Raises:
        UnexpectedDataError: when the files do not hold the known number of ratings.
    """
    users, titles, _, times = zip(*_read(_RATINGS), strict=True)
    if len(users) != RATINGS:
        raise UnexpectedDataError(f"{DATA} has {len(users):,} ratings instead of {RATINGS:,}")
    rated_at_s = np.array(times, dtype=np.int64)
    prefixed = pa.array([f"tt{title}" for title in titles])
    return _catalogue(), events_from_ratings("mt", pa.array(users), prefixed, rated_at_s)


def _catalogue() -> pa.Table:
    titles, names, genres = zip(*_read(_TITLES), strict=True)
    years = [int(match[1]) for name in names if (match := _YEAR.search(name))]
    if len(years) != len(names):
        raise UnexpectedDataError(f"a film in {DATA} has no release year in its name")
    mapped = [
        [_GENRES.get(g, g.lower()) for g in listed.split("|") if g not in _UNMAPPED]
        for listed in genres
    ]
    return contract.table(
        contract.CATALOGUE_SCHEMA,
        {
            "title_id": pa.array([f"tt{title}" for title in titles]),
            "name": pa.array(names),
            "kind": pa.array(["movie"] * len(names)),
            "genres": pa.array(mapped, pa.list_(pa.string())),
            "release_day": release_days(years),
        },
    )


def _read(name: str) -> list[list[str]]:
    with DATA.joinpath(name).open("rb") as file, gzip.open(file, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n").split("::") for line in lines]
