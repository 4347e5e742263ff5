"""Values, keys and timestamps in the bytes that Feast's Redis layout holds, without its protos.

Building 22 protobuf objects per row costs several times the row's way into Redis. The wire format
is small and fixed, so it is written directly; the conformance tests hold every byte against what
Feast itself writes. Protobuf: https://protobuf.dev/programming-guides/encoding; layout:
docs/specs/online_store_format.md of Feast.
"""

from __future__ import annotations

import struct
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from features.schema.fields import FieldType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_STRING_KEY: Final = 2
"""`ValueType.STRING`, of a join key."""

_FIRST_FIELD: Final = b"\n"  # field 1, length-delimited: the elements of StringList and FloatList


@lru_cache(maxsize=1 << 16)
def varint(number: int) -> bytes:
    """`number` as a protobuf varint; a negative one as its 64-bit two's complement."""
    rest = number & 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _tag(value_field: int, wire_type: int) -> int:
    return value_field << 3 | wire_type


# Numbers of the fields of feast.types.Value (protos/feast/types/Value.proto), and their wire types.
TAGS: Final[dict[FieldType, int]] = {
    FieldType.STRING: _tag(2, 2),
    FieldType.INT64: _tag(4, 0),
    FieldType.FLOAT32: _tag(6, 5),
    FieldType.UNIX_TIMESTAMP: _tag(8, 0),
    FieldType.STRINGS: _tag(12, 2),
    FieldType.INT64S: _tag(14, 2),
    FieldType.FLOAT32S: _tag(16, 2),
}
"""The number that a value of each type begins with."""

_STRING: Final = varint(TAGS[FieldType.STRING])
_INT64: Final = varint(TAGS[FieldType.INT64])
_UNIX_TIMESTAMP: Final = varint(TAGS[FieldType.UNIX_TIMESTAMP])
_FLOAT: Final = varint(TAGS[FieldType.FLOAT32])
_FLOAT_LIST: Final = varint(TAGS[FieldType.FLOAT32S])
_STRING_LIST: Final = varint(TAGS[FieldType.STRINGS])


def string_value(text: str) -> bytes:
    """A `string_val` of UTF-8 text."""
    raw = text.encode()
    return _STRING + varint(len(raw)) + raw


def int64_value(number: int) -> bytes:
    """An `int64_val`."""
    return _INT64 + varint(number)


def unix_timestamp_value(milliseconds: int) -> bytes:
    """A `unix_timestamp_val`, which counts whole seconds, of Unix milliseconds."""
    return _UNIX_TIMESTAMP + varint(milliseconds // 1000)


def float_value(number: float) -> bytes:
    """A `float_val`: little-endian float32."""
    return _FLOAT + struct.pack("<f", number)


@cache
def _float_list_packer(length: int) -> tuple[bytes, Callable[..., bytes]]:
    """The bytes before `length` floats, and the packer of the floats."""
    size = 4 * length
    elements = _FIRST_FIELD + varint(size) if length else b""
    head = _FLOAT_LIST + varint(len(elements) + size) + elements
    return head, struct.Struct(f"<{length}f").pack


def float_list_value(numbers: Sequence[float]) -> bytes:
    """A `float_list_val`: packed little-endian float32."""
    head, pack = _float_list_packer(len(numbers))
    return head + pack(*numbers)


@lru_cache(maxsize=1 << 16)
def _string_element(text: str) -> bytes:
    raw = text.encode()
    return _FIRST_FIELD + varint(len(raw)) + raw


def string_elements(texts: Iterable[str]) -> bytes:
    """The `StringList` of UTF-8 texts."""
    return b"".join(map(_string_element, texts))


def string_list_value(texts: Sequence[str]) -> bytes:
    """A `string_list_val` of UTF-8 texts."""
    elements = string_elements(texts)
    return _STRING_LIST + varint(len(elements)) + elements


ENCODERS: Final[dict[FieldType, Callable[[Any], bytes]]] = {
    FieldType.STRING: string_value,
    FieldType.INT64: int64_value,
    FieldType.UNIX_TIMESTAMP: unix_timestamp_value,
    FieldType.FLOAT32: float_value,
    FieldType.FLOAT32S: float_list_value,
    FieldType.STRINGS: string_list_value,
}
"""For each type that a published row uses, the function that encodes its value."""


@lru_cache(maxsize=1 << 12)
def _nanoseconds(microseconds: int) -> bytes:
    return b"\x10" + varint(microseconds * 1000) if microseconds else b""


def timestamp(microseconds: int) -> bytes:
    """A `google.protobuf.Timestamp` of Unix microseconds."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return (b"\x08" + varint(seconds) if seconds else b"") + _nanoseconds(rest)


class StringKeys:
    """Redis keys of an entity with one string join key (entity key serialization version 3)."""

    def __init__(self, join_key: str, project: str) -> None:
        name = join_key.encode()
        self._head = struct.pack("<III", 1, _STRING_KEY, len(name)) + name
        self._head += struct.pack("<I", _STRING_KEY)
        self._tail = project.encode()

    def __call__(self, value: str) -> bytes:
        """The key of the entity whose join key is `value`."""
        raw = value.encode()
        return self._head + struct.pack("<I", len(raw)) + raw + self._tail
