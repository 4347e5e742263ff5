from __future__ import annotations

from typing import Any

import pytest

from stream.adapters.registry import reader
from stream.exceptions import BadRecordError
from tests.unit.stream.adapters.samples import RATING


def told(record: dict[str, Any], **options: Any) -> tuple[dict[str, Any], ...]:
    return reader("ratings", {"source": "mt", **options})(record).events


def test_a_rating_is_an_impression_and_a_complete_play_with_nothing_invented() -> None:
    common = {
        "profile_id": "mt-7",
        "occurred_at_ms": 1_364_690_142_000,
        "title_id": "tt0104257",
    }
    assert told(RATING) == (
        {**common, "event_id": "mt-0000012-i", "event_type": "impression"},
        {
            **common,
            "event_id": "mt-0000012-p",
            "event_type": "play_complete",
            "playback_id": "mt-0000012",
        },
    )


def test_columns_are_called_as_the_options_say() -> None:
    theirs = {"id": 12, "who": {"id": 7}, "movieId": "tt0104257", "at": 1_364_690_142.0}
    named = {"rating": "id", "user": "who.id", "title": "movieId", "time": "at"}
    assert told(theirs, **named) == told({**RATING, "rating_id": "12"})


def test_a_rating_without_an_id_gets_one_of_user_title_and_time() -> None:
    nameless = {name: value for name, value in RATING.items() if name != "rating_id"}
    ids = {told({**nameless, **other})[1]["playback_id"] for other in ({}, {"user_id": "8"})}
    assert len(ids) == 2
    assert told(nameless)[1]["playback_id"] in ids


@pytest.mark.parametrize("name", ["user_id", "title_id", "timestamp"])
def test_a_rating_that_lacks_what_it_needs_is_refused(name: str) -> None:
    with pytest.raises(BadRecordError, match=f"{name} is missing"):
        told({**RATING, name: ""})
