"""Records decode into events, or name the reason why they can't."""

from __future__ import annotations

from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.domain.event_types import Playback
from stream.domain.events import decode, json_schema
from stream.domain.topics import BROWSE_EVENTS, PLAYBACK_EVENTS
from stream.exceptions import BadRecordError, Reason

NOW_MS = 1_700_000_000_000

PLAY: dict[str, Any] = {
    "event_id": "e1",
    "profile_id": "p1",
    "event_type": "play_stop",
    "occurred_at_ms": NOW_MS,
    "title_id": "t1",
    "playback_id": "b1",
    "watched_s": 12.5,
}
OPEN: dict[str, Any] = {
    "event_id": "e2",
    "profile_id": "p1",
    "event_type": "title_open",
    "occurred_at_ms": NOW_MS,
    "title_id": "t1",
}


def without(record: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != field}


def read(value: bytes | dict[str, Any], topic: str = PLAYBACK_EVENTS, **kwargs: Any) -> Any:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return decode(topic, kwargs.pop("key", b"p1"), raw, broker_time_ms=NOW_MS, **kwargs)


@pytest.mark.parametrize(
    ("topic", "value", "reason"),
    [
        (PLAYBACK_EVENTS, b"", Reason.EMPTY),
        (PLAYBACK_EVENTS, b"not json", Reason.NOT_JSON),
        (PLAYBACK_EVENTS, orjson.dumps(PLAY)[:-1], Reason.NOT_JSON),
        (PLAYBACK_EVENTS, orjson.dumps(PLAY).replace(b"t1", b"t\xff"), Reason.BAD_UTF8),
        (PLAYBACK_EVENTS, b"[]", Reason.NOT_AN_OBJECT),
        (PLAYBACK_EVENTS, b"null", Reason.NOT_AN_OBJECT),
        (BROWSE_EVENTS, b"17", Reason.NOT_AN_OBJECT),
        (PLAYBACK_EVENTS, without(PLAY, "playback_id"), Reason.MISSING_FIELD),
        (PLAYBACK_EVENTS, without(PLAY, "event_type"), Reason.MISSING_FIELD),
        (BROWSE_EVENTS, without(OPEN, "event_type"), Reason.MISSING_FIELD),
        (BROWSE_EVENTS, without(OPEN, "title_id"), Reason.MISSING_FIELD),
        (PLAYBACK_EVENTS, {**PLAY, "watched_s": "12"}, Reason.WRONG_TYPE),
        (PLAYBACK_EVENTS, {**PLAY, "occurred_at_ms": 1.5}, Reason.WRONG_TYPE),
        (PLAYBACK_EVENTS, {**PLAY, "title_id": None}, Reason.WRONG_TYPE),
        (PLAYBACK_EVENTS, {**PLAY, "event_type": "dance"}, Reason.UNKNOWN_EVENT_TYPE),
        (PLAYBACK_EVENTS, {**PLAY, "event_type": "search"}, Reason.UNKNOWN_EVENT_TYPE),
        (BROWSE_EVENTS, {**OPEN, "event_type": "play_start"}, Reason.UNKNOWN_EVENT_TYPE),
        (PLAYBACK_EVENTS, {**PLAY, "watched_s": -1}, Reason.OUT_OF_RANGE),
        (PLAYBACK_EVENTS, {**PLAY, "event_id": ""}, Reason.OUT_OF_RANGE),
        (PLAYBACK_EVENTS, {**PLAY, "event_id": "e" * 257}, Reason.OUT_OF_RANGE),
        (PLAYBACK_EVENTS, {**PLAY, "season": 40_000}, Reason.OUT_OF_RANGE),
        (PLAYBACK_EVENTS, {**PLAY, "occurred_at_ms": 1 << 60}, Reason.OUT_OF_RANGE),
        (PLAYBACK_EVENTS, orjson.dumps(PLAY).replace(b"12.5", b"NaN"), Reason.NOT_FINITE),
        (PLAYBACK_EVENTS, orjson.dumps(PLAY).replace(b"12.5", b"Infinity"), Reason.NOT_FINITE),
        (PLAYBACK_EVENTS, {**PLAY, "profile_id": "p2"}, Reason.KEY_MISMATCH),
        (PLAYBACK_EVENTS, {**PLAY, "occurred_at_ms": NOW_MS + 300_001}, Reason.IN_THE_FUTURE),
    ],
)
def test_a_bad_record_is_refused_with_its_reason(
    topic: str, value: bytes | dict[str, Any], reason: Reason
) -> None:
    with pytest.raises(BadRecordError) as refused:
        read(value, topic)
    assert refused.value.reason is reason


def test_an_oversized_record_is_refused_unread() -> None:
    with pytest.raises(BadRecordError) as refused:
        read(b" " * 2_000, max_bytes=1_999)
    assert refused.value.reason is Reason.OVERSIZED


def test_a_record_without_a_key_is_a_key_mismatch() -> None:
    with pytest.raises(BadRecordError) as refused:
        read(PLAY, key=None)
    assert refused.value.reason is Reason.KEY_MISMATCH


def test_five_minutes_ahead_of_the_broker_is_still_taken() -> None:
    assert read({**PLAY, "occurred_at_ms": NOW_MS + 300_000}).occurred_at_ms == NOW_MS + 300_000


def test_unknown_fields_are_ignored() -> None:
    assert isinstance(read({**PLAY, "brand_new": [1, 2]}), Playback)


def test_a_search_needs_no_title() -> None:
    assert (
        read({**without(OPEN, "title_id"), "event_type": "search"}, BROWSE_EVENTS).title_id is None
    )


header_values = st.none() | st.binary(max_size=30) | st.datetimes().map(lambda t: str(t).encode())
headers = st.dictionaries(
    st.sampled_from(["ce_id", "ce_type", "ce_time", "content-type", "x"]),
    header_values | st.just(b"application/cloudevents+json"),
)


@given(
    st.binary(max_size=300) | st.just(b"{}"),
    headers,
    st.sampled_from([PLAYBACK_EVENTS, BROWSE_EVENTS]),
)
def test_no_bytes_make_the_decoder_raise_anything_else(
    raw: bytes, headers: dict[str, bytes | None], topic: str
) -> None:
    with pytest.raises(BadRecordError):
        read(raw, topic, headers=[("ce_specversion", b"1.0"), *headers.items()])


@given(headers)
def test_headers_of_any_kind_leave_a_whole_event_as_it_is(headers: dict[str, bytes | None]) -> None:
    assert read(PLAY, headers=[("ce_specversion", b"1.0"), *headers.items()]) == read(PLAY)


def test_a_cloud_event_that_is_nested_too_deep_is_refused() -> None:
    deep = b'{"x":' * 500 + b"1" + b"}" * 500
    with pytest.raises(BadRecordError):
        read(deep, headers=[("ce_specversion", b"1.0"), ("ce_id", b"1")])


@pytest.mark.parametrize(("topic", "record"), [(PLAYBACK_EVENTS, PLAY), (BROWSE_EVENTS, OPEN)])
def test_the_published_schema_takes_what_the_decoder_takes(
    topic: str, record: dict[str, Any]
) -> None:
    schema = json_schema(topic)
    jsonschema.validate(record, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**record, "event_type": "dance"}, schema)
