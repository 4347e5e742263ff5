"""The title catalogue of the worker: names of title hashes, and durations."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stream.domain.labels import hash64
from stream.domain.rules import Durations
from stream.exceptions import CatalogueError

CATALOGUE_FILE: Final = "catalogue.parquet"
"""In the folder of a model version: the titles that it carries."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the worker knows of titles, by title hash. An empty one is a valid one."""

    title_ids: dict[int, str] = field(default_factory=dict)
    durations: Durations = field(default_factory=Durations)

    def take(self, newer: Catalogue) -> None:
        """Learn what a newer one says, in place; titles that it lacks stay as they are known."""
        self.title_ids.update(newer.title_ids)
        self.durations.take(newer.durations.ms)

    def ids_of(self, title_hashes: NDArray[np.int64]) -> list[list[str]]:
        """The ids behind the hashes of each row, of `[B, K]`.

        `xxh3:` and its hex digits stand for a title that is not in the catalogue.
        """
        known: Any = self.title_ids.get
        rows = title_hashes.tolist()
        ids = [[*map(known, row)] for row in rows]
        for number, row in enumerate(ids):
            if not all(row):
                ids[number] = [
                    name or f"xxh3:{title & 0xFFFF_FFFF_FFFF_FFFF:016x}"
                    for name, title in zip(row, rows[number], strict=True)
                ]
        return ids


def read_catalogue(path: Path | None) -> Catalogue:
    """The catalogue in a Parquet file with the columns `title_id` and `duration_s`.

    Raises:
        CatalogueError: when the file can't be read or lacks a column.
    """
    if path is None:
        return Catalogue()
    try:
        # `read_table` would import pandas.
        with pq.ParquetFile(path) as file:
            table = file.read(["title_id", "duration_s"]).to_pydict()
        title_ids, seconds_of = table["title_id"], table["duration_s"]
    except PermissionError as error:
        raise CatalogueError(
            f"the catalogue {path} may not be read by user {os.getuid()}: `chmod a+r` the file, "
            "in a container the one that is mounted there"
        ) from error
    except (OSError, ValueError, LookupError) as error:
        raise CatalogueError(
            f"the catalogue {path} is no Parquet file with title_id and duration_s: {error}"
        ) from error
    hashes = [hash64(title_id) for title_id in title_ids]
    durations = zip(hashes, seconds_of, strict=True)
    return Catalogue(
        title_ids=dict(zip(hashes, title_ids, strict=True)),
        durations=Durations(
            {title: round(seconds * 1000) for title, seconds in durations if seconds}
        ),
    )
