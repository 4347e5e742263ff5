"""What the benchmark of a worker sends is the same each time, in order, with states known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import orjson
import pytest

from lab.bench import traffic
from lab.bench.traffic import TRAFFICS, Traffic
from lab.simulator.parameters import SimulatorParameters
from stream.domain import codec
from stream.domain.events import decode
from stream.domain.profile_state import ProfileState
from stream.domain.rules import Rules
from stream.domain.topics import EVENT_TOPICS

NOW_MS = 1_790_000_000_000
EVENTS = 400

Make = Callable[[int, int], Traffic]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MEMBERS", 30)
    monkeypatch.setattr(traffic, "MANY_PROFILES", 40)
    monkeypatch.setattr(traffic, "NEW_PROFILES", 20)
    monkeypatch.setattr(traffic, "_LONGTIME", SimulatorParameters(members=6))


def each(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("make", TRAFFICS.values(), ids=list(TRAFFICS))(test)


@each
def test_a_traffic_is_the_same_each_time(make: Make) -> None:
    assert make(EVENTS, NOW_MS) == make(EVENTS, NOW_MS)


@each
def test_as_many_events_as_asked_for_come_in_order_of_time_and_end_now(make: Make) -> None:
    times = [event.occurred_at_ms for event in make(EVENTS, NOW_MS).events]
    assert len(times) == EVENTS
    assert times == sorted(times)
    assert times[-1] == NOW_MS


@each
def test_a_worker_can_read_what_is_sent(make: Make) -> None:
    made = make(EVENTS, NOW_MS)
    read = [decode(*record, broker_time_ms=NOW_MS) for record in made.records()]
    assert [event.event_id for event in read] == [event.event_id for event in made.events]


@each
def test_the_expected_number_is_that_of_the_state_in_any_order(make: Make) -> None:
    made = make(EVENTS, NOW_MS)
    states = {name: codec.decode(state) for name, state in made.states.items()}
    for event in reversed(made.events):
        states.setdefault(event.profile_id, ProfileState()).apply(event, Rules())
    expected = made.expected()
    assert expected == {name: states[name].sequence_no for name in expected}
    assert expected.keys() == {event.profile_id for event in made.events}


def test_each_new_event_is_an_interaction() -> None:
    made = traffic.new(EVENTS, NOW_MS)
    counts = Counter(event.profile_id for event in made.events)
    assert len(counts) == traffic.NEW_PROFILES
    assert made.expected() == counts


def test_members_send_to_both_topics_and_more_than_they_do() -> None:
    made = traffic.members(EVENTS, NOW_MS)
    assert {record.topic for record in made.records()} == {*EVENT_TOPICS}
    kinds = {orjson.loads(record.value)["event_type"] for record in made.records()}
    assert {"impression", "play_start", "play_progress"} <= kinds
    assert len(made.expected()) < EVENTS / 8


def test_members_keep_the_gaps_between_their_events() -> None:
    times = [event.occurred_at_ms for event in traffic.members(EVENTS, NOW_MS).events]
    later = [event.occurred_at_ms for event in traffic.members(EVENTS, NOW_MS + 5_000).events]
    assert later == [one + 5_000 for one in times]


def test_the_many_have_windows_that_have_been_full_before_anything_is_sent() -> None:
    made = traffic.many(EVENTS, NOW_MS)
    states = [codec.decode(state) for state in made.states.values()]
    assert len(states) == traffic.MANY_PROFILES
    half = Rules().window_length // 2
    assert all(len(state.window) > half and len(state.dropped) == half for state in states)
    began_ms = made.events[0].occurred_at_ms
    assert all(state.last_at_ms < began_ms for state in states)
    assert {event.profile_id for event in made.events} <= made.states.keys()
