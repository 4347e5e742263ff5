import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fm_intent.data import contract
from lab.exceptions import EmptyReplayError
from lab.replay.damage import KINDS
from lab.replay.plan import (
    BEHIND_BROKER,
    Fate,
    Mix,
    json_values,
    plan_replay,
    sample_profiles,
    span_s,
    topic_of,
)
from lab.replay.producer import pace
from stream.domain.events import decode
from stream.exceptions import BadRecordError, Reason

NOW_MS = 1_800_000_000_000
CLEAN = Mix(repeats=0, disorder=0, too_late=0, malformed=0)


def _events(count: int = 3_000, profiles: int = 40) -> pa.Table:
    rng = np.random.default_rng(5)
    kinds = np.array(["play_progress", "impression", "title_open"])[rng.integers(0, 3, count)]
    plays = kinds == "play_progress"
    return contract.table(
        contract.EVENTS_SCHEMA,
        {
            "event_id": pa.array([f"e{i:06d}" for i in range(count)]),
            "profile_id": pa.array([f"p{i}" for i in rng.integers(0, profiles, count)]),
            "event_type": pa.array(kinds),
            "occurred_at_ms": pa.array(np.sort(rng.integers(10**12, 2 * 10**12, count))),
            "title_id": pa.array(["t"] * count),
            "playback_id": pa.array([f"s{i // 5}" for i in range(count)], mask=~plays),
            "watched_s": pa.array(rng.random(count), mask=~plays),
        },
    )


def _plan(events: pa.Table | None = None, mix: Mix | None = None, seed: int = 1):
    events = _events() if events is None else events
    return plan_replay(
        events, seed=seed, now_ms=NOW_MS, lateness_s=span_s(events) + 60, mix=mix, prefix="run-"
    )


def test_the_same_seed_plans_the_same_replay() -> None:
    one, other = _plan(), _plan()
    assert one.events.equals(other.events)
    assert one.crafted == other.crafted
    assert (one.row == other.row).all()


def test_another_seed_plans_another_replay() -> None:
    assert _plan().crafted != _plan(seed=2).crafted


def test_all_times_are_shifted_by_one_constant_to_just_before_now() -> None:
    before, after = _events()["occurred_at_ms"], _plan().events["occurred_at_ms"]
    assert pc.count_distinct(pc.subtract(after, before)).as_py() == 1
    assert pc.max(after).as_py() == NOW_MS - 1000


def test_times_that_are_not_shifted_stay_and_what_is_too_late_lies_before_them_all() -> None:
    events = _events()
    lateness_s = (NOW_MS - pc.min(events["occurred_at_ms"]).as_py()) / 1000 + 60
    plan = plan_replay(events, seed=1, now_ms=NOW_MS, lateness_s=lateness_s, shift=False)
    assert plan.events["occurred_at_ms"].equals(events["occurred_at_ms"])
    late = [one for one in plan.crafted if one.reason == BEHIND_BROKER]
    oldest_ms = NOW_MS - lateness_s * 1000
    assert late
    assert all(orjson.loads(one.value)["occurred_at_ms"] < oldest_ms for one in late)


def test_without_a_mix_the_events_are_sent_once_each_in_order_of_time() -> None:
    plan = _plan(mix=CLEAN)
    assert (plan.row == np.arange(3_000)).all()
    assert plan.count(Fate.GOOD) == len(plan) == 3_000


def test_every_clean_event_is_sent_exactly_once_as_good() -> None:
    plan = _plan()
    assert sorted(plan.row[plan.fate == Fate.GOOD]) == list(range(3_000))


def test_repeats_come_after_their_place_and_within_reach() -> None:
    plan = _plan(mix=Mix(disorder=0, too_late=0, malformed=0))
    place = {row: i for i, row in enumerate(plan.row) if plan.fate[i] == Fate.GOOD}
    distances = [i - place[row] for i, row in enumerate(plan.row) if plan.fate[i] == Fate.REPEAT]
    assert len(distances) > 50
    assert min(distances) >= 1
    assert max(distances) <= 300 * 1.1


def test_disorder_never_lets_more_than_the_bound_of_newer_events_of_a_profile_come_first() -> None:
    plan = _plan(mix=Mix(disorder=0.3, repeats=0.3, too_late=0, malformed=0))
    profile = plan.events["profile_id"].to_pylist()
    carries = [kind != "impression" for kind in plan.events["event_type"].to_pylist()]
    seen: dict[str, list[int]] = {}
    disordered = 0
    for row in plan.row:
        if carries[row]:
            newer = len({r for r in seen.setdefault(profile[row], []) if r > row})
            assert newer <= 16
            disordered += newer > 0
            seen[profile[row]].append(row)
    assert disordered > 100


def test_too_late_events_lie_beyond_the_lateness_allowed_and_are_otherwise_valid() -> None:
    plan = _plan()
    allowed_s = span_s(_events()) + 60
    late = [c for c in plan.crafted if c.reason == "behind_broker"]
    assert len(late) == plan.count(Fate.TOO_LATE) == 9
    for record in late:
        event = decode(record.topic, record.key, record.value, broker_time_ms=NOW_MS)
        assert event.occurred_at_ms < NOW_MS - allowed_s * 1000


def test_every_kind_of_malformed_record_occurs_even_in_a_short_replay() -> None:
    plan = _plan(mix=Mix(malformed=0.0001))
    assert plan.count(Fate.MALFORMED) == len(KINDS)
    by_a_disk_alone = {Reason.UNREADABLE}
    assert {c.reason for c in plan.crafted} >= {r.value for r in set(Reason) - by_a_disk_alone}


def test_malformed_records_are_refused_with_the_reason_they_are_expected_to_get() -> None:
    bad = [c for c in _plan().crafted if c.reason != "behind_broker"]
    for record in bad:
        with pytest.raises(BadRecordError) as caught:
            decode(record.topic, record.key, record.value, broker_time_ms=NOW_MS)
        assert caught.value.reason.value == record.reason


def test_clean_events_of_a_plan_are_valid() -> None:
    plan = _plan()
    for row, value in enumerate(json_values(plan.events)[:300]):
        topic = "playback-events" if topic_of(plan.events["event_type"])[row] else "browse-events"
        key = plan.events["profile_id"][row].as_py().encode()
        assert decode(topic, key, value, broker_time_ms=NOW_MS)


def test_null_fields_are_left_out_of_the_json() -> None:
    fields = [orjson.loads(value) for value in json_values(_events(10))]
    assert all(None not in value.values() for value in fields)
    assert all(("playback_id" in f) == (f["event_type"] == "play_progress") for f in fields)


def test_every_profile_id_gets_the_prefix() -> None:
    assert pc.all(pc.starts_with(_plan().events["profile_id"], "run-p")).as_py()


def test_a_sample_keeps_whole_histories() -> None:
    events = _events()
    sample = sample_profiles(events, seed=3, profiles=5)
    chosen = pc.unique(sample["profile_id"])
    assert len(chosen) == 5
    assert sample.equals(events.filter(pc.is_in(events["profile_id"], value_set=chosen)))


def test_nothing_to_send_is_an_error() -> None:
    with pytest.raises(EmptyReplayError):
        plan_replay(_events().slice(0, 0), seed=1, now_ms=NOW_MS, lateness_s=1)


def test_at_the_pace_of_event_time_a_record_is_due_when_its_time_has_come() -> None:
    events = contract.table(
        contract.EVENTS_SCHEMA,
        {
            "event_id": pa.array(["a", "b", "c"]),
            "profile_id": pa.array(["p"] * 3),
            "event_type": pa.array(["search"] * 3),
            "occurred_at_ms": pa.array([0, 60_000, 600_000]),
        },
    )
    due = pace(_plan(events, CLEAN), None, 60.0)
    assert due is not None
    assert [due(at) for at in (0.0, 0.99, 1.0, 9.9, 10.0)] == [1, 1, 2, 2, 3]


def test_a_delayed_record_goes_with_the_one_that_it_comes_after() -> None:
    plan = _plan(mix=Mix(repeats=0, disorder=0.3, too_late=0, malformed=0))
    due = pace(plan, None, 1.0)
    assert due is not None
    at_s = plan.events["occurred_at_ms"].to_numpy()[plan.row] / 1000
    at_s -= at_s.min()
    assert (np.diff(at_s) < 0).any()
    for position in range(0, len(plan), 50):
        assert due(at_s[: position + 1].max() + 0.001) > position
        assert due(at_s[: position + 1].max() - 0.5) <= position
