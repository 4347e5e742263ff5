from __future__ import annotations

from datetime import UTC, datetime, timedelta

from feast.infra.online_stores.helpers import _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, StringList, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from features.online import encoding

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
texts = st.text(st.characters(codec="utf-8"))


@given(texts)
def test_a_string_is_encoded_as_protobuf_does(text: str) -> None:
    assert encoding.string_value(text) == Value(string_val=text).SerializeToString()


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_is_encoded_as_protobuf_does(number: int) -> None:
    assert encoding.int64_value(number) == Value(int64_val=number).SerializeToString()


@given(st.integers(-(10**14), 10**14))
def test_a_time_is_encoded_as_protobuf_does_in_whole_seconds(milliseconds: int) -> None:
    expected = Value(unix_timestamp_val=milliseconds // 1000).SerializeToString()
    assert encoding.unix_timestamp_value(milliseconds) == expected


@given(st.floats(width=32))
def test_a_float_is_encoded_as_protobuf_does(number: float) -> None:
    assert encoding.float_value(number) == Value(float_val=number).SerializeToString()


@given(st.lists(st.floats(width=32)))
def test_floats_are_encoded_as_protobuf_does(numbers: list[float]) -> None:
    expected = Value(float_list_val=FloatList(val=numbers)).SerializeToString()
    assert encoding.float_list_value(numbers) == expected


@given(st.lists(texts))
def test_strings_are_encoded_as_protobuf_does(strings: list[str]) -> None:
    expected = Value(string_list_val=StringList(val=strings)).SerializeToString()
    assert encoding.string_list_value(strings) == expected


@given(st.integers(-(10**16), 10**16))
def test_a_timestamp_is_encoded_as_protobuf_does(microseconds: int) -> None:
    expected = Timestamp()
    expected.FromDatetime(EPOCH + timedelta(microseconds=microseconds))
    assert encoding.timestamp(microseconds) == expected.SerializeToString()


@given(texts)
def test_a_key_is_the_one_that_feast_makes(profile_id: str) -> None:
    key = EntityKey(join_keys=["profile_id"], entity_values=[Value(string_val=profile_id)])
    expected = _redis_key("a project", key, entity_key_serialization_version=3)
    assert encoding.StringKeys("profile_id", "a project")(profile_id) == expected
