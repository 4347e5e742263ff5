"""Where sessions begin, and the one that a window ends in."""

from __future__ import annotations

from stream.domain.profile_state import ProfileState, Rules, state_of
from stream.domain.sessions import live_session, session_starts
from tests.unit.stream.domain.test_window import play

RULES = Rules()


def test_a_session_ends_after_the_idle_gap() -> None:
    state = state_of(play(1, 0) + play(2, 1800) + play(3, 3601), RULES)
    assert session_starts(state.window, gap_s=1800).tolist() == [0, 2]
    assert live_session(state.window, gap_s=1800).length == 1


def test_a_long_sitting_is_not_idle_time() -> None:
    state = state_of(play(1, 0, end_s=7200) + play(2, 7300), RULES)
    assert session_starts(state.window, gap_s=1800).tolist() == [0]


def test_a_late_event_may_join_two_sessions() -> None:
    events = play(1, 0) + play(2, 3000)
    state = state_of(events, RULES)
    assert len(session_starts(state.window, gap_s=1800)) == 2
    for event in play(3, 1500):
        state.apply(event, RULES)
    assert len(session_starts(state.window, gap_s=1800)) == 1


def test_an_empty_window_has_no_session() -> None:
    assert live_session(ProfileState().window, gap_s=1800) == ("", 0)
