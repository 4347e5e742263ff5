"""Training reads what serving would have, without a window's bound."""

from __future__ import annotations

import hashlib
import random

import numpy as np
from hypothesis import given

from stream.domain.actions import action_types
from stream.domain.event_types import Browse, Event, Playback, Search
from stream.domain.history import EDITION, histories
from stream.domain.profile_state import state_of
from stream.domain.progress import watched_ms, watched_share
from stream.domain.rules import Rules
from tests.unit.stream.strategies import PROFILE
from tests.unit.stream.strategies import histories as some_events

RULES = Rules(window_length=1_000)


@given(some_events)
def test_a_history_is_the_window_that_serving_would_have_kept(events: list[Event]) -> None:
    state = state_of(events, RULES)
    found = histories(events, RULES)
    if not len(state.window):
        assert found == {}
        return
    history = found[PROFILE]
    for column in ("start_ms", "device"):
        np.testing.assert_array_equal(getattr(history, column), state.window[column])
    np.testing.assert_array_equal(history.watched_ms, watched_ms(state.window))
    np.testing.assert_array_equal(history.title_hash, state.window["title"])
    np.testing.assert_array_equal(history.watched_share, watched_share(state.window, RULES))
    np.testing.assert_array_equal(history.action, action_types(state.memory, state.window, RULES))


def test_profiles_are_kept_apart() -> None:
    events = [
        event.model_copy(update={"profile_id": profile})
        for profile in ("a", "b")
        for event in _two_events()
    ]
    found = histories(events, RULES)
    assert {name: len(history.start_ms) for name, history in found.items()} == {"a": 2, "b": 2}


def _two_events() -> list[Event]:
    return [
        Search(event_id=f"e{n}", profile_id="x", occurred_at_ms=n, event_type="search")
        for n in range(2)
    ]


def a_month_of(profiles: int, events: int) -> list[Event]:
    """Events of all types, the same in each run: sittings that go on, titles that come again."""
    chosen = random.Random(0)
    made: list[Event] = []
    for number in range(events):
        kind = chosen.choice(["play_start", "play_progress", "play_complete", "browse", "search"])
        common = {
            "event_id": f"e{number}",
            "profile_id": f"p{chosen.randrange(profiles)}",
            "occurred_at_ms": chosen.randrange(30 * 86_400_000),
            "device": chosen.choice([None, "tv", "mobile", "toaster"]),
        }
        title = f"t{chosen.randrange(12)}"
        if kind == "search":
            made.append(Search(**common, event_type="search"))
        elif kind == "browse":
            types = ["impression", "title_open", "trailer_play", "list_add", "list_remove"]
            made.append(Browse(**common, event_type=chosen.choice(types), title_id=title))
        else:
            sitting = {
                "playback_id": f"s{chosen.randrange(events // 4)}",
                "watched_s": chosen.choice([None, chosen.random() * 90]),
                "position_s": chosen.choice([None, chosen.random() * 90]),
                "duration_s": chosen.choice([None, 100.0]),
                "season": chosen.choice([None, 1, 2]),
                "episode": chosen.choice([None, 1, 2, 3]),
            }
            made.append(Playback(**common, **sitting, event_type=kind, title_id=title))
    return made


def test_histories_of_an_edition_are_always_the_same() -> None:
    digest = hashlib.sha256()
    for profile, history in sorted(histories(a_month_of(5, 600), RULES).items()):
        digest.update(profile.encode())
        for column in history.__slots__:
            digest.update(getattr(history, column).tobytes())
    made = digest.hexdigest()[:16]
    assert (EDITION, made) == (2, "f7fdd62b2d6e1306"), "raise EDITION: others are kept"
