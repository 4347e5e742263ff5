"""Many states taken on together are what each is by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.domain import codec
from stream.domain.batch_states import BatchStates, TakenIn
from stream.domain.event_types import BY_NAME, Event, event_of
from stream.domain.interactions import INTERACTION, interaction_of
from stream.domain.profile_state import LogPosition, Outcome, ProfileState, state_of
from stream.domain.rules import Durations, Rules
from stream.domain.taking_in import (
    APPLIED,
    BEFORE_WINDOW,
    BEHIND_BROKER,
    ERASED,
    EVENT,
    STATELESS,
    UNCHANGED,
)
from stream.domain.topics import BROWSE_EVENTS
from stream.exceptions import BadStateError
from tests.unit.stream.strategies import histories

RULES = Rules(window_length=4, memory_length=3, durations=Durations({1: 5}))
OUTCOMES = {
    APPLIED: Outcome.APPLIED,
    UNCHANGED: Outcome.UNCHANGED,
    STATELESS: Outcome.STATELESS,
    BEFORE_WINDOW: Outcome.LATE,
}
EVER = 1 << 60


def events_of(events: list[Event], of_state: list[int], places: list[LogPosition]) -> np.ndarray:
    """The events as they are taken in, long before the broker's time would matter."""
    rows = np.zeros(len(events), EVENT)
    for row, event, state, place in zip(rows, events, of_state, places, strict=True):
        known = BY_NAME[event.event_type]
        row["state"], row["at_ms"], row["broker_ms"] = state, event.occurred_at_ms, EVER
        row["read_ms"], row["read_partition"], row["read_offset"] = place
        row["is_browse"], row["has_state"] = known.topic == BROWSE_EVENTS, known.verb is not None
    return rows


def take_in(
    states: BatchStates, events: list[Event], rows: np.ndarray, lateness_ms: int = EVER
) -> TakenIn:
    interactions = np.zeros(len(events), INTERACTION)
    for number, event in enumerate(events):
        one = interaction_of(event)
        if one is not None:
            interactions[number] = one
    ids = [event.event_id for event in events]
    return states.take_in(rows, interactions, ids, RULES, lateness_ms)


places = st.builds(LogPosition, st.integers(0, 9), st.integers(0, 2), st.integers(0, 30)) | st.just(
    LogPosition(-1, -1, -1)
)


@given(st.data(), st.lists(histories, min_size=1, max_size=3), st.lists(histories, max_size=3))
def test_events_do_to_many_states_what_they_do_to_each(
    data: st.DataObject, before: list[list[Event]], batches: list[list[Event]]
) -> None:
    apart = [state_of(events, RULES) for events in before]
    for batch in batches:
        together = BatchStates.decoded([codec.encode(state) for state in apart], RULES)
        of_state = [data.draw(st.integers(0, len(apart) - 1)) for _ in batch]
        where = [data.draw(places) for _ in batch]
        taken = take_in(together, batch, events_of(batch, of_state, where))
        outcomes = [
            apart[state].apply(event, RULES, place)
            for event, state, place in zip(batch, of_state, where, strict=True)
        ]
        assert [OUTCOMES[one] for one in taken.outcomes.tolist()] == outcomes
        rows = np.arange(len(apart))
        assert together.encoded(rows) == [codec.encode(state) for state in apart]
        assert together.sequence_no().tolist() == [state.sequence_no for state in apart]


@given(st.lists(histories, max_size=3), st.permutations(range(3)))
def test_states_come_back_in_the_order_asked_for(
    profiles: list[list[Event]], order: list[int]
) -> None:
    encoded = [codec.encode(state_of(events, RULES)) for events in profiles]
    rows = np.array([row for row in order if row < len(encoded)], np.intp)
    states = BatchStates.decoded(encoded)
    assert states.encoded(rows) == [encoded[row] for row in rows]
    assert states.take(rows).encoded(np.arange(len(rows))) == [encoded[row] for row in rows]


@given(histories, st.integers(0, 4_000), st.integers(0, 4_000))
def test_an_erasure_leaves_what_it_leaves_of_a_single_state(
    events: list[Event], first_ms: int, second_ms: int
) -> None:
    alone = state_of(events, RULES)
    states = BatchStates.decoded([codec.encode(alone)], RULES)
    for at_ms in (first_ms, second_ms):
        after = alone.erased(at_ms)
        assert states.erase(0, at_ms) is (after is not alone)
        alone = after
        assert states.encoded(np.array([0])) == [codec.encode(alone)]


def browse(number: int, at_ms: int) -> Event:
    return event_of(
        {
            "event_id": f"e{number}",
            "profile_id": "p",
            "occurred_at_ms": at_ms,
            "event_type": "title_open",
            "title_id": "t",
        }
    )


def test_what_is_too_far_behind_the_broker_touches_nothing() -> None:
    states = BatchStates.decoded([None], RULES)
    events = [browse(1, 1_000), browse(2, 5_000)]
    rows = events_of(events, [0, 0], [LogPosition(0, 0, n) for n in range(2)])
    rows["broker_ms"] = 6_000
    taken = take_in(states, events, rows, lateness_ms=2_000)
    assert taken.outcomes.tolist() == [BEHIND_BROKER, APPLIED]
    assert taken.reached.tolist() == [False, True]
    assert states.last_event_ids == ["e2"]


def test_what_happened_up_to_an_erasure_is_not_taken_in_again() -> None:
    states = BatchStates.decoded([codec.encode(ProfileState(erased_at_ms=5_000))], RULES)
    events = [browse(1, 1_000), browse(2, 4_500), browse(3, 5_001)]
    rows = events_of(events, [0, 0, 0], [LogPosition(0, 0, n) for n in range(3)])
    rows["broker_ms"] = 6_000
    taken = take_in(states, events, rows, lateness_ms=2_000)
    assert taken.outcomes.tolist() == [ERASED, ERASED, APPLIED]
    assert taken.reached.tolist() == [False, True, True]


def test_states_are_touched_in_the_order_of_their_first_event() -> None:
    states = BatchStates.decoded([None, None, None], RULES)
    events = [browse(n, 1_000 + n) for n in range(4)]
    rows = events_of(events, [2, -1, 0, 2], [LogPosition(0, 0, n) for n in range(4)])
    taken = take_in(states, events, rows)
    assert states.heads["touched"].tolist() == [1, -1, 0]
    assert taken.reached.tolist() == [True, False, True, True]


def test_damaged_bytes_among_others_are_refused() -> None:
    good = codec.encode(state_of([browse(1, 1)], RULES))
    with pytest.raises(BadStateError, match="checksum"):
        BatchStates.decoded([good, good[:-1] + b"x"])


def test_no_states_are_no_bytes() -> None:
    assert BatchStates.decoded([]).encoded(np.arange(0)) == []
