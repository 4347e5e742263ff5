"""Columns that are written a piece at a time and read as memory maps, and ids as such columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray


def open_column(path: Path) -> NDArray[Any]:
    """The values in a `.npy` file, mapped into memory and not read before they are used."""
    mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    return mapped


class GrowingColumn:
    """A `.npy` file of one dimension that values are added to.

    Args:
        path: the file, which is begun anew.
        dtype: of its values.

    Attributes:
        rows: how many there are.
    """

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.rows = 0
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")
        self._write_head()

    def append(self, values: NDArray[Any]) -> None:
        """Add values, of the file's dtype or such that fit into it."""
        self._file.write(np.ascontiguousarray(values, self._dtype).tobytes())
        self.rows += len(values)

    def close(self) -> None:
        """Say in the file's head how many values there are."""
        self._file.seek(0)
        self._write_head()
        self._file.close()

    def _write_head(self) -> None:
        # numpy leaves room in a head for the number of rows to grow, so its length stays.
        head = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.rows,)}
        np.lib.format.write_array_header_1_0(self._file, head)


class StoredIds:
    """Ids in two columns: the UTF-8 of all, and where each one's ends. Few are ever text at once.

    Args:
        text: uint8, of all ids without anything between them.
        end: `[P]` int64.
    """

    TEXT: Final = "profile_text"
    END: Final = "profile_end"
    """Names of the files."""

    def __init__(self, text: NDArray[np.uint8], end: NDArray[np.int64]) -> None:
        self._text, self._end = text, end

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Those in a folder."""
        return cls(*(open_column(folder / f"{name}.npy") for name in (cls.TEXT, cls.END)))

    def __len__(self) -> int:
        return len(self._end)

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.str_]:
        places = np.arange(len(self))[index].tolist()
        return np.array([self._one(place) for place in places], np.str_)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[np.arange(len(self))].astype(dtype or np.str_)

    def _one(self, place: int) -> str:
        begin = int(self._end[place - 1]) if place else 0
        return self._text[begin : self._end[place]].tobytes().decode()


class GrowingIds:
    """The files of `StoredIds`, which ids are added to.

    Args:
        folder: that they lie in.
    """

    def __init__(self, folder: Path) -> None:
        self._text = GrowingColumn(folder / f"{StoredIds.TEXT}.npy", np.uint8)
        self._end = GrowingColumn(folder / f"{StoredIds.END}.npy", np.int64)

    def append(self, ids: pa.Array) -> None:
        """Add ids."""
        texts = [one.encode() for one in ids.to_pylist()]
        self._end.append(self._text.rows + np.cumsum([len(one) for one in texts], dtype=np.int64))
        self._text.append(np.frombuffer(b"".join(texts), np.uint8))

    def close(self) -> None:
        """Finish both files."""
        self._text.close()
        self._end.close()
