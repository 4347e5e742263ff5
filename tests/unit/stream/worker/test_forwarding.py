"""What belongs to another partition gets there, and is judged as it would have been."""

from __future__ import annotations

import pytest

from stream.domain import topics
from stream.domain.events import decode
from stream.worker.forwarding import (
    BROKER_TIME_HEADER,
    MOST_HEADER_BYTES,
    broker_time_ms,
    forwarded,
)
from tests.unit.stream.fakes import NOW_MS, message


def test_a_copy_keeps_key_value_and_headers_and_tells_the_original_s_time() -> None:
    record = message({}, headers=[("trace", b"1"), ("trace", b"2"), ("empty", None)])
    copy = forwarded("browse-events", record, NOW_MS, partition=3)
    assert (copy.topic, copy.partition, copy.key, copy.value, copy.timestamp_ms) == (
        topics.BROWSE_EVENTS,
        3,
        record.key,
        record.value,
        None,
    )
    assert copy.headers == [*(record.headers or ()), (BROKER_TIME_HEADER, b"%d" % NOW_MS)]


def test_the_copy_of_a_copy_tells_the_first_one_s_time_once() -> None:
    record = message({}, headers=[(BROKER_TIME_HEADER, b"%d" % (NOW_MS - 5))])
    at_ms = broker_time_ms(record, NOW_MS)
    copy = forwarded("browse-events", record, at_ms, partition=3)
    assert copy.headers == [(BROKER_TIME_HEADER, b"%d" % (NOW_MS - 5))]


@pytest.mark.parametrize("told", [b"", b"soon", b"-1", b"1e3", b"9" * 5000, None])
def test_a_time_that_is_none_is_passed_over(told: bytes | None) -> None:
    assert broker_time_ms(message({}, headers=[(BROKER_TIME_HEADER, told)]), NOW_MS) == NOW_MS


def test_no_original_is_newer_than_its_copy() -> None:
    record = message({}, headers=[(BROKER_TIME_HEADER, b"%d" % (NOW_MS + 1))])
    assert broker_time_ms(record, NOW_MS) == NOW_MS


def test_of_headers_too_large_for_a_topic_those_go_along_that_the_event_is_made_of() -> None:
    attributes = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"of-the-header"),
        ("ce_time", b"2023-11-14T22:13:20Z"),
    ]
    padding = [("padding", b"x" * MOST_HEADER_BYTES), ("ce_extension", b"x" * MOST_HEADER_BYTES)]
    record = message({}, headers=[*padding, *attributes])
    record.value = b'{"profile_id": "p1", "event_type": "title_open", "title_id": "t1"}'
    copy = forwarded("browse-events", record, NOW_MS, partition=3)
    assert sum(len(text or b"") for _, text in copy.headers) < 1024
    event = decode(
        "browse-events", copy.key, copy.value, broker_time_ms=NOW_MS, headers=copy.headers
    )
    assert (event.event_id, event.occurred_at_ms) == ("of-the-header", NOW_MS)
