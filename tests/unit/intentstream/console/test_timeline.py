from __future__ import annotations

from typing import Any

from intentstream.console.timeline import Step, timeline
from intentstream.console.titles import Titles
from stream.domain.event_types import event_of
from stream.domain.labels import DEVICES
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
TITLES = Titles({"title_id": ["s1", "s2"], "name": ["One", "Two"]})


def event(number: int, minute: float, event_type: str, **more: Any) -> Any:
    fields = {
        "event_id": f"e-{number}",
        "profile_id": "p",
        "event_type": event_type,
        "occurred_at_ms": START_MS + round(minute * MINUTE_MS),
    }
    return event_of(fields | more)


def steps_of(*events: Any) -> list[Step]:
    return timeline(state_of(events, Rules()), Rules(), 1800, TITLES, DEVICES)


def test_steps_are_told_in_the_order_in_which_they_happened() -> None:
    steps = steps_of(
        event(1, 5, "title_open", title_id="s2"),
        event(2, 0, "search", query="one"),
        event(3, 9, "list_add", title_id="s1"),
    )
    assert [step.action for step in steps] == ["search", "open", "list"]
    assert [step.title and step.title.name for step in steps] == [None, "Two", "One"]


def test_a_sitting_is_one_step_with_what_was_watched_of_it() -> None:
    of_it = {"title_id": "s1", "playback_id": "b", "duration_s": 600.0, "device": "tv"}
    (step,) = steps_of(
        event(1, 0, "play_start", **of_it, season=1, episode=2),
        event(2, 5, "play_progress", **of_it, season=1, episode=2, watched_s=300.0),
    )
    assert (step.action, step.share, step.complete) == ("discover", 0.5, False)
    assert (step.season, step.episode, step.device) == (1, 2, "tv")


def test_what_nobody_watched_has_no_share() -> None:
    (step,) = steps_of(event(1, 0, "title_open", title_id="s1"))
    assert step.share is None


def test_more_idle_time_than_a_session_bears_begins_another() -> None:
    steps = steps_of(
        *(event(round(at), at, "title_open", title_id="s1") for at in (0, 30, 60.1, 62))
    )
    assert [step.begins_session for step in steps] == [True, False, True, False]


def test_a_title_that_no_catalogue_has_is_a_step_without_one() -> None:
    (step,) = steps_of(event(1, 0, "title_open", title_id="elsewhere"))
    assert step.title is None


def test_a_step_keeps_its_key_while_it_goes_on() -> None:
    of_it = {"title_id": "s1", "playback_id": "b"}
    began = event(1, 0, "play_start", **of_it)
    goes_on = event(2, 5, "play_progress", **of_it, watched_s=9.0)
    assert steps_of(began)[0].key == steps_of(began, goes_on)[0].key
