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
from stream.domain.labels import GENRES, KINDS, hash64


@dataclass(frozen=True, slots=True)
class SourceCatalogue:
    """All titles of a source; columns are `[T]`."""

    title_id: list[str]
    name: list[str]
    title_hash: NDArray[np.int64]
    genres: NDArray[np.float32]
    """`[T, len(GENRES)]`, 1 where the title has the genre."""
    kind: NDArray[np.int64]
    """1 + index into `KINDS`; 0 where unknown."""
    release_day: NDArray[np.int64]
    """Days since 1970-01-01; `UNKNOWN_DAY` where unknown."""
    duration_ms: dict[int, int]
    """Title hash → milliseconds of one sitting, where known."""

    @classmethod
    def read(cls, data_dir: Path) -> SourceCatalogue:
        """The catalogue in `data_dir`.

        Raises:
            DataUnusableError: when the file is missing.
        """
        table = contract.read(data_dir / contract.CATALOGUE_FILE)
        ids = table["title_id"].to_pylist()
        hashes = np.fromiter(map(hash64, ids), np.int64, len(ids))
        genres = np.zeros((len(ids), len(GENRES)), np.float32)
        for row, names in enumerate(table["genres"].to_pylist()):
            genres[row, [GENRES.index(name) for name in names]] = 1
        kind = pc.fill_null(pc.index_in(table["kind"], pa.array(KINDS)), -1).to_numpy()
        seconds = table["duration_s"].to_pylist()
        return cls(
            title_id=ids,
            name=table["name"].to_pylist(),
            title_hash=hashes,
            genres=genres,
            kind=kind.astype(np.int64) + 1,
            release_day=pc.fill_null(table["release_day"].cast(pa.int64()), UNKNOWN_DAY).to_numpy(),
            duration_ms={
                title: round(s * 1000)
                for title, s in zip(hashes.tolist(), seconds, strict=True)
                if s
            },
        )
