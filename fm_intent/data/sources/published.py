"""What a publisher of ratings gives, as two plain files that the source's `source.yaml` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

FOLDER: Final = "published"
"""Of both files, in the source's folder."""

RATINGS_FILE: Final = "ratings.csv"
FILMS_FILE: Final = "films.csv"


def lay_ratings(
    directory: Path, users: pa.Array, titles: pa.Array, rated_at_s: NDArray[np.int64]
) -> None:
    """Write N ratings, as the adapter `ratings` reads them.

    Each has its place in the publisher's file as its id, zero-padded, so that ratings of one second
    stay in file order wherever events are ordered by time and then by id.

    Args:
        directory: The source's folder.
        users: N user ids as strings, in file order.
        titles: N title ids as strings, in file order.
        rated_at_s: N Unix times in seconds, in file order.
    """
    places = pa.array(np.arange(len(rated_at_s))).cast(pa.string())
    ratings = {
        "rating_id": pc.utf8_lpad(places, 7, "0"),
        "user_id": users,
        "title_id": titles,
        "timestamp": pa.array(rated_at_s),
    }
    _write(directory, RATINGS_FILE, ratings)


def lay_films(
    directory: Path,
    ids: pa.Array,
    names: pa.Array,
    genres: pa.Array,
    years: Sequence[int | None],
) -> None:
    """Write T films, in the columns of a catalogue of `source.yaml`.

    Args:
        directory: The source's folder.
        ids: T title ids.
        names: T names.
        genres: T texts, as the publisher spells and separates genres.
        years: T years of release, None where unknown.
    """
    films = {
        "title_id": ids,
        "name": names,
        "kind": pa.array(["movie"] * len(ids)),
        "genres": genres,
        "release_year": pa.array(years, pa.int32()),
    }
    _write(directory, FILMS_FILE, films)


def _write(directory: Path, name: str, columns: dict[str, pa.Array]) -> None:
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    csv.write_csv(pa.table(columns), folder / name)
