"""Rows in columns are the rows that they are made of."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from stream.domain.feature_row import IntentRow
from stream.domain.intent_rows import IntentRows
from tests.unit.features.samples import SAMPLE, rows, sample

some_rows = st.lists(rows, max_size=4)


def as_float32(value: Any) -> Any:
    """The value with its floats rounded, as the store and Parquet hold them."""
    if isinstance(value, dict):
        return {name: as_float32(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_float32(one) for one in value]
    return struct.unpack("<f", struct.pack("<f", value))[0] if isinstance(value, float) else value


def published(some: Sequence[IntentRow]) -> list[Any]:
    return [as_float32(row.published()) for row in some]


@given(some_rows)
def test_rows_in_columns_read_as_the_rows_with_floats_of_32_bits(some: list[IntentRow]) -> None:
    columns = IntentRows.of(some)
    assert published([*columns]) == published(some)
    assert [columns[number] for number in range(len(some))] == [*columns]


@given(some_rows, st.slices(4))
def test_a_slice_has_the_same_rows_as_of_a_list(some: list[IntentRow], place: slice) -> None:
    assert [*IntentRows.of(some)[place]] == [*IntentRows.of(some)][place]


@given(some_rows)
def test_their_json_says_what_they_say(some: list[IntentRow]) -> None:
    written = IntentRows.of(some).to_json()
    # JSON has no infinity.
    said = orjson.loads(orjson.dumps(published(some)))
    assert [as_float32(orjson.loads(value)) for value in written] == said


def test_a_float_is_written_with_the_digits_that_tell_it_from_others() -> None:
    (value,) = IntentRows.of([sample(next_title_scores=[0.1, 1 / 3])]).to_json()
    assert b'"next_title_scores":[0.1,0.33333334]' in value


def test_ids_may_hold_what_parts_lists_in_json() -> None:
    titles = ['x"],["y', "z"]
    some = [sample(next_title_ids=titles), SAMPLE, sample(next_title_ids=[])]
    written = [orjson.loads(value) for value in IntentRows.of(some).to_json()]
    assert [one["next_title_ids"] for one in written] == [titles, SAMPLE.next_title_ids, []]
