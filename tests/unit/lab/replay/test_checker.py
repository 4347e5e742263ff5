"""The checker against what an ideal worker would leave behind, and against every kind of fault."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fm_intent.data import contract
from lab.replay.checker import CheckResult, FeatureFacts, Origin, Rejection, compare
from lab.replay.plan import Fate, Mix, Plan, json_values, plan_replay, span_s, topic_of
from lab.replay.producer import SENT_SCHEMA
from stream.domain.events import decode
from stream.domain.profile_state import Outcome, ProfileState
from stream.domain.rules import Rules

NOW_MS = 1_800_000_000_000
WINDOW = 8


def _events(count: int = 1_500) -> pa.Table:
    rng = np.random.default_rng(7)
    types = ["play_start", "play_progress", "play_complete", "impression", "search", "list_remove"]
    kinds = np.array(types)[rng.integers(0, len(types), count)]
    plays = np.char.startswith(kinds, "play_")
    sitting = np.arange(count) // 60
    profile = rng.integers(0, 12, count)
    return contract.table(
        contract.EVENTS_SCHEMA,
        {
            "event_id": pa.array([f"e{i:06d}" for i in range(count)]),
            "profile_id": pa.array([f"p{p}" for p in profile]),
            "event_type": pa.array(kinds),
            # Many ties, so that the last event is often decided by the id's hash.
            "occurred_at_ms": pa.array(np.sort(rng.integers(0, 400, count)) * 60_000),
            "title_id": pa.array([f"t{s % 9}" for s in sitting], mask=kinds == "search"),
            "playback_id": pa.array(
                [f"s{p}-{s}" for p, s in zip(profile, sitting, strict=True)], mask=~plays
            ),
            "watched_s": pa.array(rng.random(count) * 1000, mask=~plays | (kinds == "play_start")),
        },
    )


def _sent(plan: Plan) -> pd.DataFrame:
    source = plan.fate <= Fate.REPEAT
    rows = plan.events.to_pandas().iloc[np.where(source, plan.row, 0)].reset_index(drop=True)
    rows.loc[~source, :] = None
    playback = topic_of(plan.events["event_type"])
    own = {i: plan.crafted[plan.row[i]] for i in np.flatnonzero(~source)}
    sent = rows.assign(
        topic=[
            own[i].topic
            if i in own
            else ("playback-events" if playback[plan.row[i]] else "browse-events")
            for i in range(len(plan))
        ],
        partition=0,
        offset=range(len(plan)),
        fate=plan.fate,
        reason=[own[i].reason if i in own else None for i in range(len(plan))],
    )
    return sent[SENT_SCHEMA.names]


class IdealWorker:
    """What the session code, which the checker must not share, makes of a plan."""

    def __init__(self, plan: Plan, window: int) -> None:
        self.sent = _sent(plan)
        self.window = window
        self.rejected: dict[Origin, Rejection] = {}
        self.states: dict[str, ProfileState] = {}
        values = json_values(plan.events)
        for i, record in enumerate(self.sent.itertuples()):
            origin = Origin(record.topic, 0, i)
            if record.fate == Fate.TOO_LATE:
                self.rejected[origin] = Rejection("late-events", "behind_broker")
            elif record.fate == Fate.MALFORMED:
                self.rejected[origin] = Rejection(f"{record.topic}.dlq", record.reason)
            else:
                event = decode(
                    record.topic,
                    record.profile_id.encode(),
                    values[plan.row[i]],
                    broker_time_ms=NOW_MS,
                )
                state = self.states.setdefault(record.profile_id, ProfileState())
                if state.apply(event, Rules(window_length=window)) is Outcome.LATE:
                    self.rejected[origin] = Rejection("late-events", "before_window")

    @property
    def served(self) -> dict[str, FeatureFacts]:
        return {
            profile: FeatureFacts(state.sequence_no, state.last_event_id, state.last_at_ms)
            for profile, state in self.states.items()
        }

    def check(self, served: dict[str, FeatureFacts] | None = None) -> CheckResult:
        return compare(
            self.sent,
            self.rejected,
            self.served if served is None else served,
            window_length=self.window,
        )


@pytest.fixture
def worker() -> IdealWorker:
    events = _events()
    return IdealWorker(
        plan_replay(events, seed=2, now_ms=NOW_MS, lateness_s=span_s(events) + 60), window=256
    )


@pytest.fixture
def narrow_worker() -> IdealWorker:
    """Its window is so short that disorder makes events come after their window has gone."""
    events = _events()
    mix = Mix(disorder=0.3, repeats=0.1)
    return IdealWorker(
        plan_replay(events, seed=2, now_ms=NOW_MS, lateness_s=span_s(events) + 60, mix=mix),
        window=WINDOW,
    )


def _first(worker: IdealWorker, fate: Fate) -> Origin:
    row = worker.sent[worker.sent.fate == fate].iloc[0]
    return Origin(row.topic, row.partition, row.offset)


def test_an_ideal_worker_leaves_nothing_missing_and_nothing_wrong(worker) -> None:
    result = worker.check()
    assert result.ok, result.mismatches
    assert result.bounded_profiles == 0
    assert result.profiles == 12


def test_every_record_sent_is_counted_in_exactly_one_way(worker) -> None:
    result = worker.check()
    assert (
        result.events_sent
        == len(worker.sent)
        == (
            result.applied
            + result.stateless
            + result.duplicates
            + result.late
            + result.dead_lettered
        )
    )


def test_events_beyond_the_window_bound_the_check_of_their_profile(narrow_worker) -> None:
    result = narrow_worker.check()
    assert result.ok, result.mismatches
    assert result.bounded_profiles > 0
    assert result.late > (narrow_worker.sent.fate == Fate.TOO_LATE).sum()


def test_a_profile_without_features_is_missing_with_all_its_events(worker) -> None:
    served = worker.served
    del served["p3"]
    result = worker.check(served)
    assert result.missing > 50
    assert "p3 has no features" in result.mismatches[0]


def test_a_lost_event_shows_in_the_sequence_number(worker) -> None:
    served = worker.served
    served["p3"] = FeatureFacts(
        served["p3"].sequence_no - 1, served["p3"].last_event_id, served["p3"].last_event_at_ms
    )
    result = worker.check(served)
    assert (result.missing, result.wrong) == (1, 0)
    assert "p3" in result.mismatches[0]


def test_state_that_counts_something_twice_is_wrong(worker) -> None:
    served = worker.served
    served["p3"] = FeatureFacts(
        served["p3"].sequence_no + 1, served["p3"].last_event_id, served["p3"].last_event_at_ms
    )
    assert worker.check(served).wrong == 1


def test_features_that_name_another_last_event_are_wrong(worker) -> None:
    served = worker.served
    served["p3"] = FeatureFacts(served["p3"].sequence_no, "e000000", served["p3"].last_event_at_ms)
    result = worker.check(served)
    assert result.wrong == 1
    assert "the last event is e000000" in result.mismatches[0]


def test_a_valid_event_on_a_dead_letter_topic_is_wrong(worker) -> None:
    origin = _first(worker, Fate.GOOD)
    worker.rejected[origin] = Rejection(f"{origin.topic}.dlq", "not_json")
    assert worker.check().wrong >= 1


def test_a_valid_event_on_late_events_with_its_window_still_open_is_wrong(worker) -> None:
    row = worker.sent[(worker.sent.fate == Fate.GOOD) & (worker.sent.event_type == "search")]
    newest = row.iloc[-1]
    origin = Origin(newest.topic, newest.partition, newest.offset)
    worker.rejected[origin] = Rejection("late-events", "before_window")
    result = worker.check()
    assert result.wrong >= 1
    assert "was rejected" in result.mismatches[0]


@pytest.mark.parametrize("fate", [Fate.TOO_LATE, Fate.MALFORMED])
def test_a_bad_record_that_lies_nowhere_is_missing(worker, fate) -> None:
    del worker.rejected[_first(worker, fate)]
    result = worker.check()
    assert (result.missing, result.wrong) == (1, 0)


@pytest.mark.parametrize("fate", [Fate.TOO_LATE, Fate.MALFORMED])
def test_a_bad_record_with_another_reason_is_wrong(worker, fate) -> None:
    origin = _first(worker, fate)
    worker.rejected[origin] = Rejection(worker.rejected[origin].topic, "bad_mood")
    result = worker.check()
    assert (result.missing, result.wrong) == (0, 1)
    assert "bad_mood" in result.mismatches[0]


def test_a_bad_record_on_the_other_topics_dead_letters_is_wrong(worker) -> None:
    origin = _first(worker, Fate.MALFORMED)
    reason = worker.rejected[origin].reason
    worker.rejected[origin] = Rejection("late-events", reason)
    assert worker.check().wrong == 1
