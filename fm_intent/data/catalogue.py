"""The titles of a source, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_intent.data import contract
from fm_intent.served.network import UNKNOWN_DAY
from stream.domain.labels import hash64
from stream.domain.version_labels import BUILT_IN, LABELS_FILE, VersionLabels


@dataclass(frozen=True, slots=True)
class SourceCatalogue:
    """All titles of a source; columns are `[T]`."""

    title_id: list[str]
    name: list[str]
    title_hash: NDArray[np.int64]
    genres: NDArray[np.float32]
    """`[T, G]`, 1 where the title has the genre."""
    kind: NDArray[np.int64]
    """1 + number of the kind; 0 where unknown."""
    release_day: NDArray[np.int64]
    """Days since 1970-01-01; `UNKNOWN_DAY` where unknown."""
    duration_ms: dict[int, int]
    """Title hash → milliseconds of one sitting, where known."""
    labels: VersionLabels = BUILT_IN
    """The source's genres and kinds, and its devices."""

    @property
    def kinds(self) -> int:
        """How many kinds there are."""
        return len(self.labels.kinds)

    @classmethod
    def read(cls, data_dir: Path) -> SourceCatalogue:
        """The catalogue in `data_dir`.

        Raises:
            DataUnusableError: when the file is missing.
            LabelsError: when the file of its labels isn't one.
        """
        labels = read_labels(data_dir)
        table = contract.read(data_dir / contract.CATALOGUE_FILE)
        ids = table["title_id"].to_pylist()
        hashes = np.fromiter(map(hash64, ids), np.int64, len(ids))
        genres = np.zeros((len(ids), len(labels.genres)), np.float32)
        for row, names in enumerate(table["genres"].to_pylist()):
            genres[row, labels.genre_numbers(names)] = 1
        kinds = map(labels.kind_number, table["kind"].to_pylist())
        kind = [0 if number is None else 1 + number for number in kinds]
        seconds = table["duration_s"].to_pylist()
        return cls(
            title_id=ids,
            name=table["name"].to_pylist(),
            title_hash=hashes,
            genres=genres,
            kind=np.array(kind, np.int64),
            release_day=pc.fill_null(table["release_day"].cast(pa.int64()), UNKNOWN_DAY).to_numpy(),
            duration_ms={
                title: round(s * 1000)
                for title, s in zip(hashes.tolist(), seconds, strict=True)
                if s
            },
            labels=labels,
        )


def read_labels(data_dir: Path) -> VersionLabels:
    """The labels of the source in `data_dir`: its own, or those that all sources without have.

    Raises:
        LabelsError: when the file isn't one.
    """
    path = data_dir / LABELS_FILE
    return VersionLabels.of_json(path.read_bytes(), str(path)) if path.exists() else BUILT_IN
