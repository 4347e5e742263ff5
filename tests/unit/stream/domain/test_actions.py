"""Action types follow from what was played before, in window or memory."""

from __future__ import annotations

import pytest

from stream.domain.actions import action_types
from stream.domain.event_types import Browse, Event, Playback, Search
from stream.domain.labels import ACTIONS, hash64
from stream.domain.profile_state import MEMORY, ProfileState, state_of
from stream.domain.rules import Durations, Rules

RULES = Rules()


def play(number: int, title: str, **fields: object) -> Playback:
    return Playback.model_validate(
        {
            "event_id": f"e{number}",
            "profile_id": "p",
            "occurred_at_ms": number * 1000,
            "event_type": "play_stop",
            "title_id": title,
            "playback_id": f"sitting-{number}",
            "duration_s": 100.0,
            **fields,
        }
    )


def actions(events: list[Event], rules: Rules = RULES) -> list[str]:
    state = state_of(events, rules)
    return [ACTIONS[code] for code in action_types(state.memory, state.window, rules)]


def test_a_first_play_discovers_a_title() -> None:
    assert actions([play(1, "a"), play(2, "b")]) == ["discover", "discover"]


def test_an_unfinished_film_is_continued_and_a_finished_one_rewatched() -> None:
    events: list[Event] = [
        play(1, "a", watched_s=30.0),
        play(2, "a", watched_s=95.0),
        play(3, "a", watched_s=10.0),
    ]
    assert actions(events) == ["discover", "continue", "rewatch"]


def test_a_completed_sitting_without_watch_time_counts_as_finished() -> None:
    events: list[Event] = [play(1, "a", event_type="play_complete"), play(2, "a")]
    assert actions(events) == ["discover", "rewatch"]


def test_a_later_episode_continues_a_show_and_an_earlier_one_rewatches_it() -> None:
    events: list[Event] = [
        play(1, "show", season=1, episode=1, watched_s=100.0),
        play(2, "show", season=1, episode=2, watched_s=100.0),
        play(3, "show", season=1, episode=1, watched_s=100.0),
        play(4, "show", season=2, episode=1),
    ]
    assert actions(events) == ["discover", "continue", "rewatch", "continue"]


def test_the_catalogue_tells_the_duration_where_the_event_does_not() -> None:
    rules = Rules(durations=Durations({hash64("a"): 50_000}))
    events: list[Event] = [
        play(1, "a", duration_s=None, watched_s=50.0),
        play(2, "a", duration_s=None),
    ]
    assert actions(events, rules) == ["discover", "rewatch"]


@pytest.mark.parametrize(
    ("event_type", "action"),
    [("title_open", "open"), ("trailer_play", "trailer"), ("list_add", "list")],
)
def test_browsing_has_an_action_type_of_its_own(event_type: str, action: str) -> None:
    event = Browse.model_validate(
        {
            "event_id": "e",
            "profile_id": "p",
            "occurred_at_ms": 1,
            "event_type": event_type,
            "title_id": "t",
        }
    )
    assert actions([event]) == [action]


def test_a_search_is_a_search() -> None:
    event = Search(event_id="e", profile_id="p", occurred_at_ms=1, event_type="search")
    assert actions([event]) == ["search"]


def test_a_window_and_its_memory_tell_the_same_as_the_whole_history() -> None:
    events: list[Event] = [
        play(n, f"t{n % 5}", watched_s=float(n * 37 % 100)) for n in range(1, 60)
    ]
    whole = actions(events, Rules(window_length=1000))
    served = actions(events, Rules(window_length=8))
    assert served == whole[-len(served) :]


def test_no_interactions_have_no_actions() -> None:
    assert (
        len(action_types(ProfileState().memory[:0].astype(MEMORY), ProfileState().window, RULES))
        == 0
    )
