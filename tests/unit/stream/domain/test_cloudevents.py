"""CloudEvents of both modes become events; what their attributes get wrong is told."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from stream.domain.events import decode
from stream.domain.topics import PLAYBACK_EVENTS
from stream.exceptions import BadRecordError, Reason

NOW_MS = 1_700_000_000_000
DATA = {"profile_id": "p1", "title_id": "t1", "playback_id": "b1"}
ATTRIBUTES = {"specversion": "1.0", "id": "a-1", "type": "play_stop", "source": "/player"}
TIME = "2023-11-14T23:13:20+01:00"


def binary(data: dict[str, Any] = DATA, **attributes: str | bytes | None) -> Any:
    told = {**ATTRIBUTES, "time": TIME, **attributes}
    headers = [
        (f"ce_{name}", text.encode() if isinstance(text, str) else text)
        for name, text in told.items()
    ]
    return _decoded(orjson.dumps(data), headers)


def structured(content_type: str = "application/cloudevents+json", **envelope: Any) -> Any:
    whole = {**ATTRIBUTES, "time": TIME, **({} if "data_base64" in envelope else {"data": DATA})}
    value = {name: one for name, one in {**whole, **envelope}.items() if one is not ...}
    return _decoded(orjson.dumps(value), [("content-type", content_type.encode())])


def _decoded(value: bytes, headers: list[tuple[str, bytes | None]]) -> Any:
    return decode(PLAYBACK_EVENTS, b"p1", value, broker_time_ms=NOW_MS, headers=headers)


def test_attributes_stand_in_for_what_the_data_leaves_out() -> None:
    for event in (
        binary(),
        structured(),
        structured("Application/CloudEvents+JSON; charset=UTF-8"),
    ):
        assert (event.event_id, event.event_type, event.title_id) == ("a-1", "play_stop", "t1")
        assert event.occurred_at_ms == NOW_MS


def test_what_the_data_says_itself_counts() -> None:
    own = {**DATA, "event_id": "own", "occurred_at_ms": NOW_MS - 1}
    for event in (binary(own, time="nonsense", id=b"\xff"), structured(data=own, time="nonsense")):
        assert (event.event_id, event.event_type) == ("own", "play_stop")
        assert event.occurred_at_ms == NOW_MS - 1


def test_data_of_a_structured_event_may_be_base64() -> None:
    packed = base64.b64encode(orjson.dumps(DATA)).decode()
    assert structured(data_base64=packed) == structured()


def test_a_plain_event_under_the_content_type_of_a_cloud_event_is_taken() -> None:
    plain = {**DATA, "event_id": "e", "event_type": "play_stop", "occurred_at_ms": NOW_MS}
    headers = [("content-type", b"application/cloudevents+json")]
    assert _decoded(orjson.dumps(plain), headers).event_id == "e"


@pytest.mark.parametrize(
    ("attributes", "reason", "told"),
    [
        ({"time": "2023-11-14T22:13:20"}, Reason.WRONG_TYPE, "ce_time .* no offset"),
        ({"time": "2023-W46-2T22:13:20Z"}, Reason.WRONG_TYPE, r"ce_time .*\(RFC 3339\)"),
        ({"time": b"2023\xff"}, Reason.BAD_UTF8, "ce_time: byte 4"),
        ({"time": None}, Reason.MISSING_FIELD, "occurred_at_ms"),
        ({"id": ""}, Reason.OUT_OF_RANGE, "event_id"),
        ({"id": b"a\xff"}, Reason.BAD_UTF8, "ce_id: byte 1"),
        ({"id": None}, Reason.MISSING_FIELD, "event_id"),
        ({"type": "dance"}, Reason.UNKNOWN_EVENT_TYPE, "event_type"),
        ({"specversion": "0.3"}, Reason.WRONG_TYPE, "ce_specversion is '0.3'"),
        ({"specversion": None}, Reason.MISSING_FIELD, "event_id"),
    ],
)
def test_a_wrong_header_that_is_needed_is_the_reason(
    attributes: dict[str, Any], reason: Reason, told: str
) -> None:
    with pytest.raises(BadRecordError, match=told) as refused:
        binary(**attributes)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("envelope", "reason", "told"),
    [
        ({"time": "2023-11-14T22:13:20"}, Reason.WRONG_TYPE, "time .* no offset"),
        ({"time": 1_700_000_000}, Reason.WRONG_TYPE, "time is not a string"),
        ({"id": 7}, Reason.WRONG_TYPE, "event_id"),
        ({"specversion": "0.3"}, Reason.WRONG_TYPE, "specversion is '0.3'"),
        ({"data": ...}, Reason.MISSING_FIELD, "data"),
        ({"data": [1]}, Reason.NOT_AN_OBJECT, "object"),
        ({"data_base64": "§"}, Reason.NOT_JSON, "data_base64"),
        ({"data_base64": "e30"}, Reason.NOT_JSON, "data_base64"),
        ({"data_base64": 7}, Reason.NOT_JSON, "data_base64"),
    ],
)
def test_a_wrong_envelope_is_the_reason(
    envelope: dict[str, Any], reason: Reason, told: str
) -> None:
    with pytest.raises(BadRecordError, match=told) as refused:
        structured(**envelope)
    assert refused.value.reason is reason


@pytest.mark.parametrize("value", [b"\xffbinary", b"[]", b""])
def test_formats_other_than_json_are_refused(value: bytes) -> None:
    with pytest.raises(BadRecordError):
        _decoded(value, [("content-type", b"application/cloudevents+avro")])
