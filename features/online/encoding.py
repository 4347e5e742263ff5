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

from feast.protos.feast.types.Value_pb2 import Value, ValueType
from feast.types import Array, Float32, Int64, String, UnixTimestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feast import Field

_LENGTH_DELIMITED: Final = 2
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


def _tag(value_field: str, wire_type: int) -> bytes:
    return varint(Value.DESCRIPTOR.fields_by_name[value_field].number << 3 | wire_type)


_STRING: Final = _tag("string_val", _LENGTH_DELIMITED)
_INT64: Final = _tag("int64_val", 0)
_UNIX_TIMESTAMP: Final = _tag("unix_timestamp_val", 0)
_FLOAT: Final = _tag("float_val", 5)
_FLOAT_LIST: Final = _tag("float_list_val", _LENGTH_DELIMITED)
_STRING_LIST: Final = _tag("string_list_val", _LENGTH_DELIMITED)


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


def string_list_value(texts: Sequence[str]) -> bytes:
    """A `string_list_val` of UTF-8 texts."""
    elements = b"".join(map(_string_element, texts))
    return _STRING_LIST + varint(len(elements)) + elements


ENCODERS: Final[dict[Any, Callable[[Any], bytes]]] = {
    String: string_value,
    Int64: int64_value,
    UnixTimestamp: unix_timestamp_value,
    Float32: float_value,
    Array(Float32): float_list_value,
    Array(String): string_list_value,
}
"""For each Feast type that a published row uses, the function that encodes its value."""


def row_field(feature: Field) -> str:
    """The name in a published row that holds a feature; a row's times are in milliseconds."""
    return f"{feature.name}_ms" if feature.dtype == UnixTimestamp else feature.name


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
        self._head = struct.pack("<III", 1, ValueType.STRING, len(name)) + name
        self._head += struct.pack("<I", ValueType.STRING)
        self._tail = project.encode()

    def __call__(self, value: str) -> bytes:
        """The key of the entity whose join key is `value`."""
        raw = value.encode()
        return self._head + struct.pack("<I", len(raw)) + raw + self._tail
