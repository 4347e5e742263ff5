"""Encodes the rows of `profile_intent` for the script of `features.online.fenced_writes`."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from features.online.encoding import TAGS, StringKeys, string_elements, timestamp
from features.online.redis_rows import (
    FencedRow,
    feature_field,
    hash_entry,
    hash_fields,
    hash_name,
    timestamp_field,
)
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
from stream.domain.intent_rows import IntentRows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream.domain.feature_row import Erasure, IntentRow

_KINDS: Final = {
    FieldType.INT64: INTEGER,
    FieldType.UNIX_TIMESTAMP: INTEGER,
    FieldType.FLOAT32: FLOAT,
    FieldType.STRING: BYTES,
    FieldType.STRINGS: BYTES,
    FieldType.FLOAT32S: FLOATS,
}
"""How the values of a type are written."""


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

    def __call__(self, rows: Sequence[IntentRow]) -> list[FencedRow]:
        """Each row's key, its place in the fence's order and its hash fields."""
        if not rows:
            return []
        in_columns = rows if isinstance(rows, IntentRows) else IntentRows.of(rows)
        columns: Mapping[str, Any] = in_columns.columns
        times, sequence = columns["last_event_at_ms"], columns["sequence_no"]
        of_type = self._of_type
        texts = [[*map(str.encode, columns[name])] for name in of_type[FieldType.STRING]]
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
                columns["profile_id"], times.tolist(), sequence.tolist(), fields, strict=True
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
