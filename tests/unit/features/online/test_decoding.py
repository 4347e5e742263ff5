"""Stored values are read as protobuf reads them, whoever wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from feast.protos.feast.types.Value_pb2 import FloatList, Int64List, StringList, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from features.online import decoding
from features.schema.fields import FieldType

if TYPE_CHECKING:
    from google.protobuf.message import Message

texts = st.text(st.characters(codec="utf-8"))
int64s = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(width=32, allow_nan=False)


def read(kind: FieldType, message: Message) -> object:
    return decoding.value(kind, message.SerializeToString())


@given(texts)
def test_a_string_is_read(text: str) -> None:
    assert read(FieldType.STRING, Value(string_val=text)) == text


@given(int64s)
@example(decoding.NO_TIME)
def test_an_integer_and_a_time_are_read(number: int) -> None:
    assert read(FieldType.INT64, Value(int64_val=number)) == number
    expected = None if number == decoding.NO_TIME else number
    assert read(FieldType.UNIX_TIMESTAMP, Value(unix_timestamp_val=number)) == expected


@given(floats)
def test_a_float_is_read(number: float) -> None:
    assert read(FieldType.FLOAT32, Value(float_val=number)) == number


@given(st.lists(floats))
def test_floats_are_read(numbers: list[float]) -> None:
    value = Value(float_list_val=FloatList(val=numbers))
    assert read(FieldType.FLOAT32S, value) == numbers


@given(st.lists(int64s))
def test_integers_are_read(numbers: list[int]) -> None:
    assert read(FieldType.INT64S, Value(int64_list_val=Int64List(val=numbers))) == numbers


@given(st.lists(texts))
def test_strings_are_read(strings: list[str]) -> None:
    assert read(FieldType.STRINGS, Value(string_list_val=StringList(val=strings))) == strings


@given(st.integers(-(10**16), 10**16))
def test_a_timestamp_is_read_in_milliseconds(microseconds: int) -> None:
    stored = Timestamp()
    stored.FromMicroseconds(microseconds)
    assert decoding.milliseconds(stored.SerializeToString()) == stored.ToMilliseconds()


@pytest.mark.parametrize("kind", FieldType)
@pytest.mark.parametrize("raw", [None, b""])
def test_what_is_not_there_is_null(kind: FieldType, raw: bytes | None) -> None:
    assert decoding.value(kind, raw) is None


@pytest.mark.parametrize("kind", [one for one in FieldType if one is not FieldType.STRING])
def test_a_value_of_another_type_is_told(kind: FieldType) -> None:
    with pytest.raises(ValueError, match="not of type"):
        read(kind, Value(string_val="a"))


@given(st.binary(max_size=40))
def test_whatever_is_stored_is_read_or_told(raw: bytes) -> None:
    for kind in FieldType:
        try:
            decoding.value(kind, raw)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (FieldType.STRING, Value(string_val="abc")),
        (FieldType.INT64, Value(int64_val=300)),
        (FieldType.FLOAT32, Value(float_val=1.5)),
        (FieldType.STRINGS, Value(string_list_val=StringList(val=["abc", "d"]))),
        (FieldType.INT64S, Value(int64_list_val=Int64List(val=[300, 1]))),
        (FieldType.FLOAT32S, Value(float_list_val=FloatList(val=[1.5, 2.5]))),
    ],
)
def test_a_value_that_is_cut_short_is_told(kind: FieldType, value: Value) -> None:
    with pytest.raises(ValueError, match="cut short"):
        decoding.value(kind, value.SerializeToString()[:-1])
