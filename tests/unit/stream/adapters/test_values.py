from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from stream.adapters.values import at, made_id, ordinal, time_ms
from stream.exceptions import BadRecordError

BERLIN = ZoneInfo("Europe/Berlin")


def test_a_path_goes_into_objects_and_into_the_first_of_a_list() -> None:
    assert at({"a": [{"b": {"c": 1}}]}, "a.b.c") == 1
    assert at({"a.b": 2}, "a.b") == 2
    assert at({"a": 3}, "a.b") is None


@pytest.mark.parametrize(
    ("written", "number"),
    [("2", 2), ("S02", 2), ("Season 11", 11), ("Specials", None), ("S02E03", None), (4, 4)],
)
def test_a_number_of_a_season_may_be_in_words(written: object, number: int | None) -> None:
    assert ordinal(written, "season") == number


def test_a_time_without_an_offset_is_of_the_zone() -> None:
    summer = time_ms("2024-07-01 12:00:00", "t", BERLIN)
    assert summer == time_ms("2024-07-01T10:00:00Z", "t")
    assert time_ms("2024-01-01 12:00:00", "t", BERLIN) == time_ms("2024-01-01T11:00:00Z", "t")


def test_an_hour_that_the_clocks_show_twice_is_the_first() -> None:
    twice = time_ms("2024-10-27 02:30:00", "t", BERLIN)
    assert twice == time_ms("2024-10-27T00:30:00Z", "t")


def test_a_time_with_an_offset_keeps_it() -> None:
    assert time_ms("2024-07-01T12:00:00Z", "t", BERLIN) == time_ms("2024-07-01T12:00:00Z", "t")


def test_a_time_of_no_calendar_is_refused() -> None:
    with pytest.raises(BadRecordError, match="there is no such time"):
        time_ms("2024-02-30T12:00:00Z", "t")


def test_an_id_is_of_its_parts_and_of_where_one_ends() -> None:
    assert made_id("a", "bc") == made_id("a", "bc") != made_id("ab", "c")


def test_a_time_that_the_clocks_passed_over_is_refused() -> None:
    with pytest.raises(BadRecordError, match="the clocks of Europe/Berlin passed over"):
        time_ms("2024-03-31 02:30:00", "t", BERLIN)
    assert time_ms("2024-03-31 03:00:00", "t", BERLIN) == time_ms("2024-03-31T01:00:00Z", "t")
