"""The session state is a join: order and repetition of events can't hurt it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.domain.codec import encode
from stream.domain.event_types import Browse, Event, Playback
from stream.domain.interactions import measure
from stream.domain.profile_state import (
    UNREAD,
    LogPosition,
    Outcome,
    ProfileState,
    state_of,
)
from stream.domain.rules import Rules
from tests.unit.stream.strategies import PROFILE, histories

RULES = Rules()
SMALL = Rules(window_length=4, memory_length=3)


_erasures = st.sampled_from([0, 1_500, 2_500])


def play(number: int, at_ms: int, **fields: object) -> Playback:
    return Playback.model_validate(
        {
            "event_id": f"e{number}",
            "profile_id": PROFILE,
            "occurred_at_ms": at_ms,
            "event_type": "play_start",
            "title_id": f"t{number}",
            "playback_id": f"p{number}",
            **fields,
        }
    )


def same(a: ProfileState, b: ProfileState) -> bool:
    return encode(a) == encode(b)


@given(histories, st.randoms())
def test_any_order_of_the_same_events_gives_the_same_state(
    events: list[Event], random: object
) -> None:
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert same(state_of(events, RULES), state_of(shuffled, RULES))


@given(histories, st.data())
def test_repeated_events_change_nothing(events: list[Event], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(events), max_size=20)) if events else []
    state = state_of(events, RULES)
    outcomes = {state.apply(event, RULES) for event in again}
    assert outcomes <= {Outcome.UNCHANGED, Outcome.STATELESS}
    assert same(state, state_of(events, RULES))


def after(
    erased_at_ms: int, events: list[Event], partition: int = 0, offset: int = 0
) -> ProfileState:
    """The state of events after an erasure, read one behind the other."""
    state = ProfileState().erased(erased_at_ms)
    for number, event in enumerate(events, start=offset):
        state.apply(event, RULES, place(number, partition=partition))
    return state


def place(offset: int, *, at_ms: int | None = None, partition: int = 0) -> LogPosition:
    """Where a record stands; the broker gives eight in a row the same time."""
    return LogPosition(offset // 8 if at_ms is None else at_ms, partition, offset)


states = st.builds(after, _erasures, histories, st.integers(0, 1), st.integers(0, 40))


@given(states, states)
def test_joining_states_is_commutative(one: ProfileState, other: ProfileState) -> None:
    assert same(one.joined(other, RULES), other.joined(one, RULES))


@given(states, states, states)
def test_joining_states_is_associative(x: ProfileState, y: ProfileState, z: ProfileState) -> None:
    left = x.joined(y, RULES).joined(z, RULES)
    assert same(left, x.joined(y.joined(z, RULES), RULES))


@given(states)
def test_joining_a_state_with_itself_is_idempotent(state: ProfileState) -> None:
    assert same(state.joined(state, RULES), state)


@given(histories, histories)
def test_a_join_of_states_equals_the_state_of_all_events(a: list[Event], b: list[Event]) -> None:
    both = state_of(a, RULES).joined(state_of(b, RULES), RULES)
    assert same(both, state_of([*a, *b], RULES))


@pytest.mark.parametrize("rules", [RULES, SMALL], ids=["one window", "dropped blocks"])
@given(histories, histories, st.integers(0, 30), _erasures, _erasures)
def test_a_state_covers_another_exactly_when_it_is_the_join_of_the_two(
    rules: Rules, events: list[Event], others: list[Event], cut: int, one: int, other: int
) -> None:
    whole, part = ProfileState().erased(one), ProfileState().erased(other)
    for offset, event in enumerate(events):
        whole.apply(event, rules, place(offset))
    for offset, event in enumerate([*events[:cut], *others[cut : cut + 2]]):
        part.apply(event, rules, place(offset))
    for a, b in ((whole, part), (part, whole), (whole, whole)):
        assert a.covers(b, rules) == same(a.joined(b, rules), a)


@given(histories)
def test_sequence_no_grows_with_every_applied_interaction(events: list[Event]) -> None:
    state = ProfileState()
    for event in events:
        before, rows = state.sequence_no, len(state.window)
        outcome = state.apply(event, RULES)
        assert state.sequence_no >= before
        if len(state.window) > rows:
            assert state.sequence_no > before
        if outcome is Outcome.UNCHANGED:
            assert state.sequence_no == before


@given(st.integers(1, 40))
def test_sequence_no_is_the_measure_of_everything_however_much_was_dropped(count: int) -> None:
    events = [play(n, 1_000 + 10 * n) for n in range(count)]
    everything = state_of(events, Rules(window_length=1_000))
    assert state_of(events, SMALL).sequence_no == measure(everything.window)


def test_a_full_window_drops_its_oldest_half_at_once() -> None:
    state = state_of([play(n, n) for n in range(5)], SMALL)
    assert state.window["start_ms"].tolist() == [2, 3, 4]


@given(st.integers(0, 40), st.randoms())
def test_the_window_starts_at_the_same_block_whatever_the_batches(
    count: int, random: object
) -> None:
    # The served window of N interactions starts at 2·max(0, ceil((N - 4) / 2)) here.
    state = state_of([play(n, n) for n in range(count)], SMALL)
    start = 2 * max(0, -(-(count - 4) // 2))
    assert state.window["start_ms"].tolist() == list(range(start, count))


def test_a_dropped_title_is_remembered_with_its_furthest_episode() -> None:
    events: list[Event] = [
        play(0, 0, title_id="show", season=1, episode=2),
        play(1, 1, title_id="show", season=1, episode=1),
        *[play(n, n) for n in range(2, 7)],
    ]
    state = state_of(events, SMALL)
    show = state.memory[np.isin(state.memory["last_ms"], [1])]
    assert (show["progress"][0] >> 16) == (1 << 15 | 2)


def test_the_title_memory_keeps_the_latest_titles() -> None:
    state = state_of([play(n, n) for n in range(20)], SMALL)
    assert len(state.memory) == SMALL.memory_length
    assert sorted(state.memory["last_ms"].tolist()) == [13, 14, 15]


def test_an_event_older_than_a_full_window_is_late_and_changes_nothing() -> None:
    state = state_of([play(n, 100 + n) for n in range(6)], SMALL)
    before = encode(state)
    assert state.apply(play(99, 50), SMALL) is Outcome.LATE
    assert encode(state) == before


def test_a_straggler_of_a_sitting_that_was_dropped_is_late_not_a_new_interaction() -> None:
    state = state_of([play(n, 100 + n) for n in range(6)], SMALL)
    straggler = play(77, 10_000, title_id="t1", playback_id="p1", event_type="play_stop")
    assert state.apply(straggler, SMALL) is Outcome.LATE


_long = st.lists(st.integers(0, 60), min_size=5, max_size=60)


@given(_long, st.integers(0, 60))
def test_whatever_was_consumed_before_is_not_late_when_it_is_delivered_again(
    times: list[int], start: int
) -> None:
    records = [(play(n, at_ms), place(n)) for n, at_ms in enumerate(times)]
    state = ProfileState()
    for event, where in records:
        state.apply(event, SMALL, where)
    before = encode(state)
    again = {state.apply(event, SMALL, where) for event, where in records[start:]}
    assert again <= {Outcome.UNCHANGED}
    assert encode(state) == before


@given(_long, _long)
def test_what_either_of_two_owners_consumed_is_not_late_after_their_join(
    times: list[int], others: list[int]
) -> None:
    records = [(play(n, at_ms), place(n)) for n, at_ms in enumerate([*times, *others])]
    former, successor = ProfileState(), ProfileState()
    for event, where in records[: len(times)]:
        former.apply(event, SMALL, where)
    for event, where in records:
        successor.apply(event, SMALL, where)
    joined = former.joined(successor, SMALL)
    assert {joined.apply(event, SMALL, where) for event, where in records} <= {Outcome.UNCHANGED}


@pytest.mark.parametrize(
    "where",
    [
        UNREAD,
        place(6, at_ms=0),
        place(6, at_ms=9),
        place(2, at_ms=9),
        place(2, at_ms=0, partition=1),
    ],
    ids=["unknown", "next", "later", "of a log made anew", "of another partition"],
)
def test_an_event_that_was_not_consumed_before_is_late(where: LogPosition) -> None:
    state = ProfileState()
    for n in range(6):
        state.apply(play(n, 100 + n), SMALL, place(n))
    assert state.apply(play(99, 50), SMALL, where) is Outcome.LATE


def test_an_event_of_a_topic_that_is_read_behind_the_other_is_late() -> None:
    state = ProfileState()
    for n in range(6):
        state.apply(play(n, 100 + n), SMALL, place(n))
    opened = Browse(
        event_id="b", profile_id=PROFILE, occurred_at_ms=50, event_type="title_open", title_id="t"
    )
    assert state.apply(opened, SMALL, place(0)) is Outcome.LATE
    assert state.apply(opened, SMALL, place(0)) is Outcome.UNCHANGED


def test_a_late_event_within_the_window_is_taken_in_where_it_belongs() -> None:
    state = state_of([play(n, 100 * n) for n in range(1, 4)], SMALL)
    assert state.apply(play(9, 150), SMALL) is Outcome.APPLIED
    assert state.window["start_ms"].tolist() == [100, 150, 200, 300]


def test_a_recovered_successor_is_not_undone_by_a_paused_former_owner() -> None:
    events = [play(n, 100 + n) for n in range(8)]
    former, successor = state_of(events[:5], SMALL), state_of(events, SMALL)
    assert same(successor.joined(former, SMALL), successor)


def test_nothing_of_a_state_is_left_when_its_profile_was_erased_elsewhere() -> None:
    former, successor = state_of([play(1, 5)], SMALL), ProfileState().erased(10)
    assert same(former.joined(successor, SMALL), successor)


def test_an_erasure_that_is_no_news_leaves_what_came_since() -> None:
    state = after(10, [play(1, 20)])
    assert state.erased(10) is state
    assert len(state.erased(11).window) == 0


def test_an_impression_carries_no_state() -> None:
    seen = Browse(
        event_id="e",
        profile_id=PROFILE,
        occurred_at_ms=1,
        event_type="impression",
        title_id="t",
    )
    state = ProfileState()
    assert state.apply(seen, RULES) is Outcome.STATELESS
    assert same(state, ProfileState())


@pytest.mark.parametrize("reverse", [False, True])
def test_the_newest_event_names_the_state_and_ties_fall_to_one_of_them(reverse: bool) -> None:
    events = [play(1, 5), play(2, 5), play(3, 4)]
    state = state_of(reversed(events) if reverse else events, RULES)
    assert (state.last_at_ms, state.last_event_id) == (5, state_of(events, RULES).last_event_id)
