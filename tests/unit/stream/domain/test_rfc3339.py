"""Times are read by RFC 3339's grammar, the same on every machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.domain.rfc3339 import unix_ms


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t01:00:00.5+01:00", 500),
        ("1969-12-31T19:00:00.123987-05:00", 123),
        ("1970-01-01T00:00:00.123456789z", 123),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1990-12-31T23:59:60Z", 662_688_000_000),  # an example of section 5.8
        ("1969-12-31T23:59:59.25Z", -750),
    ],
)
def test_what_the_grammar_knows_is_read(text: str, expected_ms: int, far_from_utc: None) -> None:
    assert unix_ms(text) == expected_ms


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00.5",
    ],
)
def test_a_time_without_an_offset_is_refused_with_what_is_missing(text: str) -> None:
    with pytest.raises(ValueError, match="no offset"):
        unix_ms(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-01-31",
        "2026-W05-6T12:00:00Z",
        "20260131T120000Z",
        "2026-01-31T12Z",
        "2026-01-31T12:00Z",
        "2026-01-31 12:00:00Z",
        "2026-01-31T12:00:00,5Z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00+01",
        "2026-01-31T12:00:00+0100",
        "2026-01-31T12:00:00+01:00:30",
        "2026-01-31T12:00:00Z\n",
        "٢٠٢٦-01-31T12:00:00Z",
        "1769860800",
    ],
)
def test_what_only_iso_8601_knows_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        unix_ms(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30T12:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:60:00Z",
        "2026-01-31T12:00:61Z",
        "2026-01-31T12:00:00+24:00",
        "0000-01-01T00:00:00Z",
    ],
)
def test_a_time_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no such time"):
        unix_ms(text)


zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=zones))
def test_every_moment_comes_back_from_its_text(at: datetime) -> None:
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    assert unix_ms(at.isoformat()) == since // timedelta(milliseconds=1)
