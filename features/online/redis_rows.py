"""Rows of `profile_intent` as the script of `features.online.fenced_writes` takes them.

They go past Feast's protobuf objects, straight into the bytes that Feast's Redis layout holds.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import mmh3
import numpy as np

from features.online.encoding import TAGS, StringKeys, string_elements, timestamp
from features.online.row_bytes import (
    BYTES,
    FLOAT,
    FLOATS,
    INTEGER,
    TIMESTAMP,
    Layout,
    Values,
    hash_fields_of,
)
from features.schema.fields import FieldType
from features.schema.views import PROJECT, profile_intent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream.domain.feature_row import Erasure
    from stream.domain.intent_rows import IntentRows

_KINDS: Final = {
    FieldType.INT64: INTEGER,
    FieldType.UNIX_TIMESTAMP: INTEGER,
    FieldType.FLOAT32: FLOAT,
    FieldType.STRING: BYTES,
    FieldType.STRINGS: BYTES,
    FieldType.FLOAT32S: FLOATS,
}
"""How the values of a type are written."""


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


class RowEncoder:
    """Encodes rows for `features.online.fenced_writes`, many at once."""

    def __init__(self, project: str = PROJECT) -> None:
        view = profile_intent.name
        self._key = StringKeys(profile_intent.join_key, project)
        self._time = hash_name(timestamp_field(view))
        self._count = 1 + len(profile_intent.features)
        self._of_type = {
            kind: [one.row_field for one in profile_intent.features if one.type is kind]
            for kind in _KINDS
        }
        # A field's name among the columns of its kind goes by the order of `_KINDS`.
        ordered = sorted(profile_intent.features, key=lambda one: [*_KINDS].index(one.type))
        self._layout = Layout.of(
            hash_fields(self._count, ()),
            [
                (self._time, TIMESTAMP, 0),
                *(
                    (hash_name(feature_field(view, one.name)), _KINDS[one.type], TAGS[one.type])
                    for one in ordered
                ),
            ],
        )

    def __call__(self, rows: IntentRows) -> list[FencedRow]:
        """Each row's key, its place in the fence's order and its hash fields."""
        if not rows:
            return []
        times, sequence = rows.numbers("last_event_at_ms"), rows.numbers("sequence_no")
        columns: Mapping[str, Any] = rows.columns
        of_type = self._of_type
        texts = [[*map(str.encode, rows.texts(name))] for name in of_type[FieldType.STRING]]
        texts += [[*map(string_elements, columns[name])] for name in of_type[FieldType.STRINGS]]
        fields = hash_fields_of(
            self._layout,
            Values(
                numbers=np.array(
                    [
                        times,
                        *(columns[name] for name in of_type[FieldType.INT64]),
                        *(columns[name] // 1000 for name in of_type[FieldType.UNIX_TIMESTAMP]),
                    ]
                ),
                floats=np.array([columns[name] for name in of_type[FieldType.FLOAT32]]),
                texts=[*chain.from_iterable(texts)],
                lists=[columns[name] for name in of_type[FieldType.FLOAT32S]],
            ),
        )
        return [
            FencedRow(self._key(profile_id), b"%d000" % at_ms, b"%d" % number, of_row)
            for profile_id, at_ms, number, of_row in zip(
                rows.texts("profile_id"), times.tolist(), sequence.tolist(), fields, strict=True
            )
        ]

    def emptied(self, profile_id: str, erasure: Erasure, ahead_ms: int) -> FencedRow:
        """The row that replaces everything written of a profile up to its erasure.

        Its features are null. Its time is that of the erasure, so that what was under way then is
        refused; it replaces what is as much newer as events' clocks may be ahead, and what came of
        events that were erased though they came later.
        """
        erased_at_ms, newest_ms = erasure
        return FencedRow(
            key=self._key(profile_id),
            micros=b"%d000" % max(erased_at_ms + ahead_ms, newest_ms),
            sequence=b"",
            fields=hash_fields(
                self._count,
                [
                    hash_entry(self._time, timestamp(erased_at_ms * 1000)),
                    *(
                        hash_entry(hash_name(feature_field(profile_intent.name, one.name)), b"")
                        for one in profile_intent.features
                    ),
                ],
            ),
        )
