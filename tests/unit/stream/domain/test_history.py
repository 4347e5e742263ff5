"""Training reads what serving would have, without a window's bound."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from stream.domain.actions import action_types
from stream.domain.events import Event, Search
from stream.domain.history import histories
from stream.domain.profile_state import Rules, state_of, watched_share
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
    for column in ("start_ms", "watched_ms", "device"):
        np.testing.assert_array_equal(getattr(history, column), state.window[column])
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
