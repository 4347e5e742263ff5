from __future__ import annotations

from typing import Any

import pytest

from stream.adapters.registry import reader
from stream.exceptions import BadRecordError
from tests.unit.stream.adapters.samples import TRAKT_EPISODE, TRAKT_OPTIONS


def only(record: dict[str, Any], **options: Any) -> dict[str, Any]:
    (event,) = reader("trakt", {**TRAKT_OPTIONS, **options})(record).events
    return event


def test_an_entry_is_a_sitting_that_was_watched_to_its_end() -> None:
    assert only(TRAKT_EPISODE) == {
        "event_id": "trakt-1982347",
        "profile_id": "me",
        "event_type": "play_complete",
        "occurred_at_ms": 1_396_258_133_000,
        "title_id": "1388",
        "playback_id": "trakt-1982347",
        "season": 1,
        "episode": 2,
    }


def test_a_film_is_called_by_the_id_that_is_asked_for() -> None:
    film = {
        **{name: TRAKT_EPISODE[name] for name in ("id", "watched_at", "action")},
        "type": "movie",
        "movie": {"title": "The Dark Knight", "ids": {"trakt": 120, "imdb": "tt0468569"}},
    }
    assert only(film, ids="imdb")["title_id"] == "tt0468569"
    with pytest.raises(BadRecordError, match=r"movie\.ids\.tmdb is missing"):
        only(film, ids="tmdb")


def test_entries_that_were_marked_by_hand_can_be_left_out() -> None:
    marked = {**TRAKT_EPISODE, "action": "watch"}
    options = {**TRAKT_OPTIONS, "actions": ["scrobble", "checkin"]}
    assert reader("trakt", options)(marked).passed_over == "a watch"


def test_a_clock_that_was_never_set_is_refused() -> None:
    with pytest.raises(BadRecordError, match="watched_at is before 1990"):
        only({**TRAKT_EPISODE, "watched_at": "1970-01-01T00:00:00.000Z"})
