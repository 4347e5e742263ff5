"""The session that a window ends in."""

from __future__ import annotations

from stream.domain.batch_states import BatchStates
from stream.domain.event_types import Event
from stream.domain.profile_state import ProfileState, state_of
from stream.domain.rules import Rules
from stream.domain.sessions import NO_SESSION, Session, live_sessions
from tests.unit.stream.domain.test_window import play

RULES = Rules()


def live(*parts: list[Event]) -> Session:
    events = [event for part in parts for event in part]
    (session,) = live_sessions(BatchStates.of([state_of(events, RULES)]), gap_s=1800)
    return session


def test_a_session_ends_after_the_idle_gap() -> None:
    assert live(play(1, 0), play(2, 1800)).length == 2
    assert live(play(1, 0), play(2, 1800), play(3, 3601)).length == 1


def test_a_long_sitting_is_not_idle_time() -> None:
    assert live(play(1, 0, end_s=7200), play(2, 7300)).length == 2


def test_a_late_event_may_join_two_sessions() -> None:
    assert live(play(1, 0), play(2, 3000)).length == 1
    assert live(play(1, 0), play(2, 3000), play(3, 1500)).length == 3


def test_a_session_is_named_after_its_first_interaction_alone() -> None:
    assert live(play(1, 9000)) == live(play(9, 0), play(1, 9000))
    assert live(play(1, 1)).id == live(play(1, 1), play(2, 2)).id != live(play(2, 2)).id


def test_each_window_has_the_session_that_it_has_alone() -> None:
    states = [state_of(events, RULES) for events in (play(1, 0), [], play(2, 0) + play(3, 9000))]
    assert live_sessions(BatchStates.of(states), gap_s=1800) == [
        *live_sessions(BatchStates.of(states[:1]), gap_s=1800),
        NO_SESSION,
        *live_sessions(BatchStates.of(states[2:]), gap_s=1800),
    ]


def test_an_empty_window_has_no_session() -> None:
    assert live_sessions(BatchStates.of([ProfileState()]), gap_s=1800) == [NO_SESSION]
