"""Values and timestamps out of the bytes that Feast's Redis layout holds: `encoding`, backwards."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from features.online.encoding import TAGS, varint
from features.schema.fields import FieldType

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_FIELD: Final = 0x0A  # field 1, length-delimited: the elements of a list
_SIGN: Final = 1 << 63

NO_TIME: Final = -_SIGN
"""What Feast stores for a time that is null (`NULL_TIMESTAMP_INT_VALUE` of its type_map.py)."""


def value(kind: FieldType, raw: bytes | None) -> Any:
    """A stored value; None for null, which is stored as nothing or not at all.

    Args:
        kind: The feature's type.
        raw: A serialized `Value`.

    Raises:
        ValueError: when it is a value of another type, or none.
    """
    if not raw:
        return None
    tag = varint(TAGS[kind])
    if not raw.startswith(tag):
        raise ValueError(f"not of type {kind.value}: {raw[:16]!r}")
    try:
        return _PAYLOADS[kind](raw, len(tag))
    except (IndexError, struct.error) as error:
        raise ValueError(f"cut short: {raw[:16]!r}") from error


def milliseconds(timestamp: bytes | None) -> int:
    """Unix milliseconds of a `google.protobuf.Timestamp`; 0 where there is none."""
    raw = timestamp or b""
    seconds = nanoseconds = at = 0
    while at < len(raw):
        number, end = _varint(raw, at + 1)
        if raw[at] == 0x08:
            seconds = _signed(number)
        else:
            nanoseconds = number
        at = end
    return seconds * 1000 + nanoseconds // 1_000_000


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The varint at a place, and the place behind it."""
    number = shift = 0
    while (byte := raw[at]) > 0x7F:
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return number | byte << shift, at + 1


def _signed(number: int) -> int:
    return number - (_SIGN << 1) if number & _SIGN else number


def _integer(raw: bytes, at: int) -> int:
    return _signed(_varint(raw, at)[0])


def _time(raw: bytes, at: int) -> int | None:
    seconds = _integer(raw, at)
    return None if seconds == NO_TIME else seconds


def _float(raw: bytes, at: int) -> float:
    number: float = struct.unpack_from("<f", raw, at)[0]
    return number


def _text(raw: bytes, at: int) -> str:
    length, start = _varint(raw, at)
    if start + length != len(raw):
        raise IndexError
    return raw[start:].decode()


def _elements(raw: bytes, at: int) -> tuple[int, int]:
    """Where the elements of a list of numbers begin and end, which stand in one piece."""
    _, start = _varint(raw, at)
    if start == len(raw):
        return start, start
    length, begin = _varint(raw, start + 1)
    if raw[start] != _FIRST_FIELD or begin + length != len(raw):
        raise IndexError
    return begin, len(raw)


def _floats(raw: bytes, at: int) -> list[float]:
    start, end = _elements(raw, at)
    return list(struct.unpack_from(f"<{(end - start) // 4}f", raw, start))


def _integers(raw: bytes, at: int) -> list[int]:
    start, end = _elements(raw, at)
    numbers = []
    while start < end:
        number, start = _varint(raw, start)
        numbers.append(_signed(number))
    return numbers


def _texts(raw: bytes, at: int) -> list[str]:
    _, at = _varint(raw, at)
    texts = []
    while at < len(raw):
        length, start = _varint(raw, at + 1)
        at = start + length
        if at > len(raw):
            raise IndexError
        texts.append(raw[start:at].decode())
    return texts


_PAYLOADS: Final[dict[FieldType, Callable[[bytes, int], Any]]] = {
    FieldType.STRING: _text,
    FieldType.INT64: _integer,
    FieldType.UNIX_TIMESTAMP: _time,
    FieldType.FLOAT32: _float,
    FieldType.STRINGS: _texts,
    FieldType.INT64S: _integers,
    FieldType.FLOAT32S: _floats,
}
