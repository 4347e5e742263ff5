"""The title catalogue of the worker: names of title hashes, and durations."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stream.domain.labels import hash64
from stream.domain.rules import Durations
from stream.exceptions import CatalogueError

if TYPE_CHECKING:
    from collections.abc import Mapping

CATALOGUE_FILE: Final = "catalogue.parquet"
"""In the folder of a model version: the titles that it carries."""


@dataclass(slots=True)
class Catalogue:
    """What the worker knows of titles, by title hash. An empty one is a valid one."""

    title_ids: dict[int, str] = field(default_factory=dict)
    durations: Durations = field(default_factory=Durations)
    _nameless: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What stands for titles that were asked for and are not known: no more than models name."""

    _by_hash: tuple[NDArray[np.int64], NDArray[np.object_]] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    """All hashes in ascending order, and what each is called; None when that has changed."""

    def take(self, newer: Catalogue) -> None:
        """Learn what a newer one says, in place; titles that it lacks stay as they are known."""
        self.title_ids.update(newer.title_ids)
        self.durations.take(newer.durations.ms)
        self._by_hash = None

    def ids_of(self, title_hashes: NDArray[np.int64]) -> list[list[str]]:
        """The ids behind the hashes of each row, of `[B, K]`.

        `xxh3:` and its hex digits stand for a title that is not in the catalogue.
        """
        if self._by_hash is None:
            named = {title: name for title, name in self.title_ids.items() if name}
            self._by_hash = _by_hash(self._nameless | named)
        hashes, ids = self._by_hash
        places = np.searchsorted(hashes[:-1], title_hashes)
        is_unknown = (hashes[places] != title_hashes) | (places == len(hashes) - 1)
        if is_unknown.any():
            for title in title_hashes[is_unknown].tolist():
                self._nameless[title] = f"xxh3:{title & 0xFFFF_FFFF_FFFF_FFFF:016x}"
            self._by_hash = None
            return self.ids_of(title_hashes)
        rows: list[list[str]] = ids[places].tolist()
        return rows


def _by_hash(names: Mapping[int, str]) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """With a last entry that is no title, for hashes behind all others."""
    ordered = sorted(names)
    ids = np.array([*map(names.__getitem__, ordered), ""], np.object_)
    return np.array([*ordered, 0], np.int64), ids


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
