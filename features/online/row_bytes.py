"""The hash fields of many rows at once, by a compiled loop.

A field is two msgpack strings: its name, and its value as protobuf writes a Feast `Value`. The
functions of `features.online.encoding` say the same of a single value.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from stream.domain.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stream.domain.intent_rows import FloatLists

TIMESTAMP: Final = 0
"""A `google.protobuf.Timestamp`, of Unix milliseconds."""
INTEGER: Final = 1
FLOAT: Final = 2
BYTES: Final = 3
FLOATS: Final = 4

_LONGEST_VARINT: Final = 10
_AROUND_VALUE: Final = 4 + 4 * _LONGEST_VARINT
"""Bytes beside a value's own at most: its length, and what protobuf puts before it."""


class Layout(NamedTuple):
    """What is alike in all rows; a field each."""

    head: NDArray[np.uint8]
    """Bytes before the first field."""

    names: NDArray[np.uint8]
    """The names as msgpack strings, and what begins the values' strings."""

    name_begin: NDArray[np.int64]
    """`[F + 1]`."""

    kind: NDArray[np.int64]
    """`[F]`."""

    tag: NDArray[np.int64]
    """`[F]`, of the field of `Value`."""

    place: NDArray[np.int64]
    """`[F]` among the columns of its kind, where `TIMESTAMP` and `INTEGER` are one."""

    @classmethod
    def of(cls, head: bytes, fields: Sequence[tuple[bytes, int, int]]) -> Layout:
        """The layout of fields of a name, a kind and a tag."""
        names, kinds, tags = zip(*fields, strict=True)
        begin = np.cumsum([0, *map(len, names)])
        columns = [INTEGER if kind == TIMESTAMP else kind for kind in kinds]
        return cls(
            np.frombuffer(head, np.uint8),
            np.frombuffer(b"".join(names), np.uint8),
            begin,
            np.array(kinds),
            np.array(tags),
            np.array([columns[:number].count(one) for number, one in enumerate(columns)]),
        )


class Values(NamedTuple):
    """What differs from row to row."""

    numbers: NDArray[np.int64]
    """`[columns, B]`."""

    floats: NDArray[np.float32]
    """`[columns, B]`."""

    texts: Sequence[bytes]
    """Column after column, B of each."""

    lists: Sequence[FloatLists]


def hash_fields_of(layout: Layout, values: Values) -> list[bytes]:
    """The bytes of B rows."""
    rows = values.numbers.shape[1]
    text_begin = np.zeros(len(values.texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, values.texts), np.int64, len(values.texts)), out=text_begin[1:])
    lists = np.concatenate([one.values for one in values.lists], axis=1)
    list_begin = np.cumsum([0, *(one.values.shape[1] for one in values.lists)])
    each = len(layout.head) + len(layout.names) + _AROUND_VALUE * len(layout.kind)
    out = np.empty(rows * each + text_begin[-1] + lists.nbytes, np.uint8)
    begin = np.zeros(rows + 1, np.int64)
    _write(
        *layout,
        values.numbers,
        values.floats.view(np.uint8).reshape(len(values.floats), rows, 4),
        np.frombuffer(b"".join(values.texts), np.uint8),
        text_begin,
        lists.view(np.uint8),
        list_begin,
        np.array([one.length for one in values.lists]),
        out,
        begin,
    )
    written, ends = out[: begin[-1]].tobytes(), begin.tolist()
    return [written[start:end] for start, end in pairwise(ends)]


@compiled
def _write(
    head: NDArray[np.uint8],
    names: NDArray[np.uint8],
    name_begin: NDArray[np.int64],
    kinds: NDArray[np.int64],
    tags: NDArray[np.int64],
    places: NDArray[np.int64],
    numbers: NDArray[np.int64],
    floats: NDArray[np.uint8],
    texts: NDArray[np.uint8],
    text_begin: NDArray[np.int64],
    lists: NDArray[np.uint8],
    list_begin: NDArray[np.int64],
    list_length: NDArray[np.int64],
    out: NDArray[np.uint8],
    begin: NDArray[np.int64],
) -> None:
    rows = numbers.shape[1]
    at = 0
    for row in range(rows):
        at = _copy(out, at, head, 0, len(head))
        for field in range(len(kinds)):
            at = _copy(out, at, names, name_begin[field], name_begin[field + 1])
            value = at + 4
            kind, tag, place = kinds[field], tags[field], places[field]
            if kind == TIMESTAMP:
                end = _timestamp(out, value, numbers[place, row])
            elif kind == INTEGER:
                end = _varint(out, _varint(out, value, tag), numbers[place, row])
            elif kind == FLOAT:
                end = _copy(out, _varint(out, value, tag), floats[place, row], 0, 4)
            elif kind == BYTES:
                text = place * rows + row
                first, last = text_begin[text], text_begin[text + 1]
                end = _varint(out, _varint(out, value, tag), last - first)
                end = _copy(out, end, texts, first, last)
            else:
                first = 4 * list_begin[place]
                size = 4 * list_length[place, row]
                end = _floats(out, _varint(out, value, tag), lists[row], first, size)
            length = end - value
            for byte in range(4):
                out[at + byte] = (length >> (24 - 8 * byte)) & 0xFF
            at = end
        begin[row + 1] = at


@compiled
def _floats(out: NDArray[np.uint8], at: int, row: NDArray[np.uint8], first: int, size: int) -> int:
    """A `FloatList` behind its length: packed floats, of which there may be none."""
    if size == 0:
        return _varint(out, at, 0)
    bytes_of_size = 1
    while size >> (7 * bytes_of_size):
        bytes_of_size += 1
    at = _varint(out, at, 1 + bytes_of_size + size)
    out[at] = 0x0A
    return _copy(out, _varint(out, at + 1, size), row, first, first + size)


@compiled
def _timestamp(out: NDArray[np.uint8], at: int, milliseconds: int) -> int:
    seconds, rest = milliseconds // 1000, milliseconds % 1000
    if seconds != 0:
        out[at] = 0x08
        at = _varint(out, at + 1, seconds)
    if rest != 0:
        out[at] = 0x10
        at = _varint(out, at + 1, rest * 1_000_000)
    return at


@compiled
def _varint(out: NDArray[np.uint8], at: int, number: int) -> int:
    """Write a number, a negative one as its 64-bit two's complement; return the end."""
    rest = np.uint64(number)
    while rest > np.uint64(0x7F):
        out[at] = (rest & np.uint64(0x7F)) | np.uint64(0x80)
        rest >>= np.uint64(7)
        at += 1
    out[at] = rest
    return at + 1


@compiled
def _copy(out: NDArray[np.uint8], at: int, source: NDArray[Any], first: int, last: int) -> int:
    for place in range(first, last):
        out[at] = source[place]
        at += 1
    return at
