from __future__ import annotations

from typing import Any

import pytest

from stream.adapters.registry import reader
from stream.exceptions import BadRecordError
from tests.unit.stream.adapters.samples import NETFLIX_ROW

BEGAN = 1_710_447_123_000


def events(**columns: Any) -> tuple[dict[str, Any], ...]:
    return reader("netflix")({**NETFLIX_ROW, **columns}).events


def why(**columns: Any) -> str:
    return reader("netflix")({**NETFLIX_ROW, **columns}).passed_over


def test_a_row_is_a_sitting_with_its_time_and_its_bookmark() -> None:
    start, stop = events()
    assert (start["occurred_at_ms"], stop["occurred_at_ms"]) == (BEGAN, BEGAN + 2_902_000)
    assert (stop["watched_s"], stop["position_s"]) == (2902.0, 2911.0)
    assert (stop["title_id"], stop["season"], stop["country"]) == ("Dark", 2, "DE")
    assert start["playback_id"] == stop["playback_id"]


@pytest.mark.parametrize(
    ("name", "show", "season", "episode"),
    [
        ("Inception", "Inception", None, None),
        ("Mission: Impossible", "Mission: Impossible", None, None),
        ("Star Wars: Episode 4: A New Hope", "Star Wars: Episode 4: A New Hope", None, None),
        ("Dark: Staffel 2: Folge 3", "Dark", 2, 3),
        ("La casa de papel: Parte 3: Hemos vuelto", "La casa de papel", 3, None),
        ("Marvel's Daredevil: Season 1: Into the Ring", "Marvel's Daredevil", 1, None),
        ("Avatar: The Last Airbender: Book 1: Water", "Avatar: The Last Airbender", 1, None),
        ("Chernobyl: Miniseries: Episode 2", "Chernobyl", None, 2),
    ],
)
def test_titles_are_shows_with_seasons_or_films(
    name: str, show: str, season: int | None, episode: int | None
) -> None:
    start = events(Title=name)[0]
    told = (start["title_id"], start.get("season"), start.get("episode"))
    assert told == (show, season, episode)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"Supplemental Video Type": "TRAILER"}, "trailer"),
        ({"Supplemental Video Type": "TEASER_TRAILER"}, "teaser trailer"),
        ({"Supplemental Video Type": "HOOK"}, "hook"),
        ({"Attributes": "Autoplayed: user action: None; "}, "autoplay"),
    ],
)
def test_what_nobody_started_is_no_play(columns: dict[str, str], reason: str) -> None:
    assert why(**columns) == reason


def test_what_began_by_itself_and_was_taken_up_is_a_play() -> None:
    assert len(events(Attributes="Autoplayed: user action: User_Interaction; ")) == 2


def test_a_length_of_zero_is_unknown() -> None:
    start, stop = events(Duration="00:00:00")
    assert "watched_s" not in {*start, *stop}


def test_headers_may_name_their_units() -> None:
    row = {
        {"Start Time": "Start Time (UTC)", "Duration": "Duration (H:MM:SS)"}.get(name, name): value
        for name, value in NETFLIX_ROW.items()
    }
    assert reader("netflix")(row).events == events()


def test_a_clock_of_1970_is_refused() -> None:
    with pytest.raises(BadRecordError, match="Start Time is before 1990"):
        events(**{"Start Time": "1970-01-01 00:00:12"})


def test_a_bookmark_counts_where_the_length_is_empty() -> None:
    start, stop = events(Duration="")
    assert (stop["event_type"], stop["position_s"]) == ("play_stop", 2911.0)
    assert stop["occurred_at_ms"] == start["occurred_at_ms"]
    assert "watched_s" not in stop
    assert len(events(Duration="", Bookmark="")) == 1
