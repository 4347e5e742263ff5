"""Rows of `profile_intent` as the script of `features.online.fenced_writes` takes them.

They go past Feast's protobuf objects, straight into the bytes that Feast's Redis layout holds.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import mmh3

from features.online.encoding import ENCODERS, StringKeys, float_list_value, timestamp
from features.schema.fields import FieldType
from features.schema.views import PROJECT, profile_intent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from features.schema.fields import Feature
    from stream.domain.feature_row import Erasure, IntentRow

_SELDOM_REPEATED: Final = (
    "next_title_ids",
    "title_log_norm",
    "session_id",
    "sequence_no",
    "last_event_id",
)
"""Features of which keeping encoded values would cost more than it saves."""


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
    """Encodes rows for `features.online.fenced_writes`.

    Encoding is most of what a row costs its writer. So entries of values that come again in row
    after row (labels, versions, whole seconds) are kept, and all float lists of a row are packed by
    one call, around the bytes between them, which depend on the lists' lengths alone.
    """

    def __init__(self, project: str = PROJECT) -> None:
        view = profile_intent.name
        lists = [one for one in profile_intent.features if one.type is FieldType.FLOAT32S]
        others = [one for one in profile_intent.features if one.type is not FieldType.FLOAT32S]
        self._key = StringKeys(profile_intent.join_key, project)
        self._time = hash_name(timestamp_field(view))
        self._lists = itemgetter(*(one.row_field for one in lists))
        self._list_names = [hash_name(feature_field(view, one.name)) for one in lists]
        self._packers: dict[tuple[int, ...], tuple[list[bytes], Callable[..., bytes]]] = {}
        self._values = itemgetter(*(one.row_field for one in others))
        self._entries = [_entry_encoder(view, one) for one in others]
        self._count = 1 + len(profile_intent.features)

    def __call__(self, row: IntentRow) -> FencedRow:
        """The row's key, its place in the fence's order and its hash fields."""
        published = row.published()
        entries = [hash_entry(self._time, timestamp(row.last_event_at_ms * 1000))]
        entries += [
            entry(value)
            for entry, value in zip(self._entries, self._values(published), strict=True)
        ]
        entries.append(self._float_entries(self._lists(published)))
        return FencedRow(
            key=self._key(row.profile_id),
            micros=b"%d000" % row.last_event_at_ms,
            sequence=b"%d" % row.sequence_no,
            fields=hash_fields(self._count, entries),
        )

    def _float_entries(self, lists: tuple[list[float], ...]) -> bytes:
        lengths = tuple(map(len, lists))
        if lengths not in self._packers:
            self._packers[lengths] = self._packer(lengths)
        heads, pack = self._packers[lengths]
        arguments: list[bytes | float] = []
        for head, numbers in zip(heads, lists, strict=True):
            arguments.append(head)
            arguments += numbers
        return pack(*arguments)

    def _packer(self, lengths: tuple[int, ...]) -> tuple[list[bytes], Callable[..., bytes]]:
        """The bytes ahead of each list of floats, and what packs them and the floats in turn."""
        heads = []
        for name, length in zip(self._list_names, lengths, strict=True):
            entry = hash_entry(name, float_list_value([0.0] * length))
            heads.append(entry[: len(entry) - 4 * length])
        layout = (f"{len(head)}s{length}f" for head, length in zip(heads, lengths, strict=True))
        return heads, struct.Struct("<" + "".join(layout)).pack

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


def _entry_encoder(view: str, feature: Feature) -> Callable[[Any], bytes]:
    """The function that encodes a value of `feature` for its entry in the hash."""
    name, encode = hash_name(feature_field(view, feature.name)), ENCODERS[feature.type]

    def entry(value: Any) -> bytes:
        return hash_entry(name, encode(value))

    return entry if feature.name in _SELDOM_REPEATED else lru_cache(maxsize=4096)(entry)
