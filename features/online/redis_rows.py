"""Rows of `profile_intent` as the script of `features.online.fenced_writes` takes them.

They go past Feast's protobuf objects, straight into the bytes that Feast's Redis layout holds.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import mmh3

if TYPE_CHECKING:
    from collections.abc import Iterable


class FencedRow(NamedTuple):
    """One row as the script takes it."""

    key: bytes
    """The entity's Redis key."""
    micros: bytes
    """Event time in Unix microseconds, decimal digits."""
    sequence: bytes
    """The row's `sequence_no`, decimal digits; empty where it has none."""
    fields: bytes
    """`hash_fields` of the row, the timestamp among them."""


_length: Final = struct.Struct(">I").pack


def hash_name(name: bytes) -> bytes:
    """What goes before a value of the hash's field `name` in `hash_fields`, but for its length."""
    return b"\xdb" + _length(len(name)) + name + b"\xdb"


def hash_entry(name: bytes, value: bytes) -> bytes:
    """One field and its value, as two msgpack strings of the form that fits every length.

    Args:
        name: A result of `hash_name`.
        value: The field's value.
    """
    return name + _length(len(value)) + value


def hash_fields(count: int, entries: Iterable[bytes]) -> bytes:
    """`count` results of `hash_entry` as the msgpack array that the script writes with one HSET.

    Args:
        count: How many entries there are.
        entries: The entries; several may be in one piece.
    """
    return b"\xdc" + struct.pack(">H", 2 * count) + b"".join(entries)


def timestamp_field(view_name: str) -> bytes:
    """Name of the hash field that holds the event timestamp of a view."""
    return f"_ts:{view_name}".encode()


def feature_field(view_name: str, feature: str) -> bytes:
    """Name of the hash field that holds a feature of a view: its murmur3 hash, little-endian."""
    return struct.pack("<I", mmh3.hash(f"{view_name}:{feature}", signed=False))
