"""Rows of one batch in columns, as the model's answer is: nothing is built for a single one.

Who wants single rows reads them as of any sequence; what is written in bulk is written of columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self, overload

import numpy as np
import orjson
from numpy.typing import NDArray

from stream.domain.feature_row import FIELD_TYPES, PUBLISHED, IntentRow


class FloatLists(NamedTuple):
    """A list of floats for each of B rows."""

    values: NDArray[np.float32]
    """`[B, W]`, padded."""

    length: NDArray[np.int64]
    """`[B]`."""

    def tolist(self) -> list[list[float]]:
        """The lists."""
        rows: list[list[float]] = self.values.tolist()
        if len(rows) and self.length.min() < self.values.shape[1]:
            return [row[:length] for row, length in zip(rows, self.length.tolist(), strict=True)]
        return rows


Column = list[str] | list[list[str]] | NDArray[np.int64] | NDArray[np.float32] | FloatLists
"""One field of B rows; numbers are `[B]`."""


@dataclass(frozen=True, slots=True, eq=False)
class IntentRows(Sequence[IntentRow]):
    """B rows.

    Args:
        columns: by the names in `PUBLISHED`, in that order.
    """

    columns: Mapping[str, Column]

    @classmethod
    def of(cls, rows: Sequence[IntentRow]) -> Self:
        """These rows in columns; their floats are held as float32."""
        published = [row.published() for row in rows]
        return cls(
            {
                name: _column(FIELD_TYPES[name], [row[name] for row in published])
                for name in PUBLISHED
            }
        )

    def __len__(self) -> int:
        ids: Any = self.columns["profile_id"]
        return len(ids)

    @overload
    def __getitem__(self, place: int) -> IntentRow: ...
    @overload
    def __getitem__(self, place: slice) -> Self: ...
    def __getitem__(self, place: int | slice) -> IntentRow | Self:
        if isinstance(place, slice):
            return type(self)({name: _cut(one, place) for name, one in self.columns.items()})
        number = range(len(self))[place]
        one = self[number : number + 1].columns
        return IntentRow.of({name: _values(column)[0] for name, column in one.items()})

    def __iter__(self) -> Iterator[IntentRow]:
        columns = [_values(column) for column in self.columns.values()]
        for row in zip(*columns, strict=True):
            yield IntentRow.of(dict(zip(self.columns, row, strict=True)))

    def to_json(self) -> list[bytes]:
        """The values of the rows' records on the topic `intent-features`.

        A float is written with the fewest digits that no other float32 has.
        """
        if not self:
            return []
        fields = [_json(FIELD_TYPES[name], self.columns[name]) for name in self.columns]
        return [_TEMPLATE % row for row in zip(*fields, strict=True)]


_TEMPLATE: Final = b"{%s}" % b",".join(b'"%s":%%b' % name.encode() for name in PUBLISHED)


def _column(kind: Any, values: list[Any]) -> Column:
    if kind is float:
        return np.array(values, np.float32)
    if kind == list[float]:
        length = np.fromiter(map(len, values), np.int64, len(values))
        padded = np.zeros((len(values), int(length.max(initial=0))), np.float32)
        for row, numbers in zip(padded, values, strict=True):
            row[: len(numbers)] = numbers
        return FloatLists(padded, length)
    if kind is str or kind == list[str]:
        return values
    return np.array(values, np.int64)


def _cut(column: Column, place: slice) -> Column:
    if isinstance(column, FloatLists):
        return FloatLists(column.values[place], column.length[place])
    return column[place]


def _values(column: Column) -> list[Any]:
    return column if isinstance(column, list) else column.tolist()


def _json(kind: Any, column: Any) -> Sequence[bytes]:
    if kind is str:
        return [_quoted(text) for text in column]
    if kind == list[str]:
        return _json_texts(column)
    if isinstance(column, FloatLists):
        return _json_lists(column)
    return _json_numbers(column)[1:-1].split(b",")


def _json_texts(column: list[list[str]]) -> list[bytes]:
    if all(column):
        lists = orjson.dumps(column)[3:-3].split(b'"],["')
        if len(lists) == len(column):  # a text may hold what parts them
            return [b'["%b"]' % texts for texts in lists]
    return [*map(orjson.dumps, column)]


def _json_lists(column: FloatLists) -> list[bytes]:
    values, length = np.ascontiguousarray(column.values), column.length
    lists = [b"[%b]" % numbers for numbers in _json_numbers(values)[2:-2].split(b"],[")]
    for row in np.flatnonzero(length < values.shape[1]).tolist():
        lists[row] = _json_numbers(values[row, : length[row]])
    return lists


def _json_numbers(values: NDArray[Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)


@lru_cache(maxsize=1 << 16)
def _quoted(text: str) -> bytes:
    return orjson.dumps(text)
