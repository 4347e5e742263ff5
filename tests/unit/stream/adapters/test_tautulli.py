from __future__ import annotations

from typing import Any

from stream.adapters.registry import reader
from tests.unit.stream.adapters.samples import TAUTULLI_ROW


def events(**fields: Any) -> tuple[dict[str, Any], ...]:
    return reader("tautulli")({**TAUTULLI_ROW, **fields}).events


def why(**fields: Any) -> str:
    return reader("tautulli")({**TAUTULLI_ROW, **fields}).passed_over


def test_a_row_is_a_sitting_with_its_time_played() -> None:
    start, stop = events()
    assert (start["occurred_at_ms"], stop["occurred_at_ms"]) == (1462688107000, 1462688370000)
    assert (start["event_type"], stop["event_type"]) == ("play_start", "play_stop")
    assert stop["watched_s"] == 233
    assert (stop["title_id"], stop["season"], stop["episode"]) == ("351", 7, 17)
    assert stop["profile_id"] == "8008135"


def test_a_row_alone_is_its_own_sitting_and_a_group_that_of_its_first_row() -> None:
    assert events()[0]["playback_id"] == "1124"
    assert events(group_count=3)[0]["playback_id"] == "1123"


def test_a_group_that_grew_is_the_same_sitting() -> None:
    before, after = events(group_count=2), events(group_count=3, row_id=1190, stopped=1462699999)
    assert before[0] == after[0]
    assert before[1]["playback_id"] == after[1]["playback_id"]
    assert before[1]["event_id"] != after[1]["event_id"]


def test_what_tautulli_counts_as_watched_is_complete_unless_it_is_live() -> None:
    assert events(watched_status=1)[1]["event_type"] == "play_complete"
    assert events(watched_status=1, live=1)[1]["event_type"] == "play_stop"


def test_a_film_is_its_item() -> None:
    event = events(media_type="movie", grandparent_rating_key="", parent_media_index="")[0]
    assert event["title_id"] == "4348"
    assert "season" not in event


def test_without_a_time_played_it_is_what_was_not_paused() -> None:
    assert events(play_duration=None)[1]["watched_s"] == 263 - 30


def test_a_row_that_has_not_stopped_tells_no_end() -> None:
    (start,) = events(stopped=0)
    assert start["event_type"] == "play_start"


def test_what_is_no_play_is_passed_over_with_its_reason() -> None:
    assert why(media_type="track") == "no video"
    assert why(media_type="clip") == "trailer"
    assert why(state="playing") == "still playing"
