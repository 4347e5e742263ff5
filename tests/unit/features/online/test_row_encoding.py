"""The compiled encoder writes what the functions of `features.online.encoding` do."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from features.online.encoding import ENCODERS, timestamp
from features.online.redis_rows import feature_field, timestamp_field
from features.online.row_encoding import RowEncoder
from features.schema.views import profile_intent
from stream.domain.feature_row import IntentRow
from stream.domain.intent_rows import IntentRows
from tests.unit.features.samples import SAMPLE, rows, sample

VIEW = profile_intent.name
ENCODE = RowEncoder("a project")


def entries(fields: bytes) -> dict[bytes, bytes]:
    """The fields and values in a msgpack array of strings of 32-bit lengths."""
    count, at, strings = int.from_bytes(fields[1:3]), 3, []
    for _ in range(count):
        begin = at + 5
        at = begin + int.from_bytes(fields[at + 1 : begin])
        strings.append(fields[begin:at])
    assert (fields[:1], at) == (b"\xdc", len(fields))
    return dict(zip(strings[::2], strings[1::2], strict=True))


def one_by_one(row: IntentRow) -> dict[bytes, bytes]:
    """The same, value by value."""
    values = row.published()
    return {timestamp_field(VIEW): timestamp(row.last_event_at_ms * 1000)} | {
        feature_field(VIEW, one.name): ENCODERS[one.type](values[one.row_field])
        for one in profile_intent.features
    }


@given(st.lists(rows, max_size=4))
@example([SAMPLE, sample(next_title_ids=[], intent_embedding=[], user_embedding=[0.5] * 5_000)])
def test_many_rows_are_encoded_as_each_by_itself(some: list[IntentRow]) -> None:
    encoded = ENCODE(IntentRows.of(some))
    assert [entries(row.fields) for row in encoded] == [*map(one_by_one, some)]


def test_a_row_says_its_place_in_the_order_in_decimal_digits() -> None:
    (row,) = ENCODE(IntentRows.of([SAMPLE]))
    assert (row.micros, row.sequence) == (b"1700000000123000", b"17")
