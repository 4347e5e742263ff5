"""The demo sees whether served release ages are those of the plays that members held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from features.reading.intents import Freshness, LiveIntent
from fm_intent.data import contract
from lab.demo.ages import Ages, compare_ages
from stream.domain.labels import RELEASE_AGES
from tests.unit.features.samples import sample

DAY_MS = 86_400_000
AGES_DAYS = [0, 29, 30, 400, 5_000, 9_000]
BUCKETS = ["month", "month", "quarter", "3-years", "20-years", "older"]


def compared(served: Sequence[str] = BUCKETS) -> Ages:
    """Profiles whose last play is of these ages, and whose features say this."""
    count = len(AGES_DAYS)
    profiles = [f"p{number}" for number in range(count)]
    times = [11_000 * DAY_MS + number for number in range(count)]
    events = contract.table(
        contract.EVENTS_SCHEMA,
        {
            "event_id": pa.array([f"e{n}" for n in range(3 * count)]),
            "profile_id": pa.array(3 * profiles),
            "event_type": pa.array(
                ["play_complete"] * count + ["play_complete"] * count + ["impression"] * count
            ),
            "occurred_at_ms": pa.array(
                [at - 10**9 for at in times] + times + [at + 10 for at in times]
            ),
            "title_id": pa.array(
                ["old"] * count + [f"t{number}" for number in range(count)] + ["old"] * count
            ),
            "playback_id": pa.array([f"s{n}" for n in range(2 * count)] + [None] * count),
        },
    )
    catalogue = pa.table(
        {
            "title_id": ["old", *(f"t{number}" for number in range(count))],
            "release_day": [-30_000, *(11_000 - age for age in AGES_DAYS)],
        }
    )
    features = [
        LiveIntent(
            profile,
            Freshness.STALE,
            0,
            sample(release_age_probs=[0.9 * (name == bucket) for name in RELEASE_AGES]),
        )
        for profile, bucket in zip(profiles, served, strict=True)
    ]
    return compare_ages(
        events, catalogue, [*features, LiveIntent("none", Freshness.ABSENT, 0, None)]
    )


def test_ages_are_those_of_each_profile_s_last_play() -> None:
    ages = compared()
    assert ages.held_out == pytest.approx(np.array([2, 1, 0, 1, 0, 1, 1]) / 6)
    assert ages.apart == pytest.approx(0)
    assert ages.profiles == 6
    assert ages.ok


def test_ages_that_are_served_as_if_plays_had_happened_decades_later_are_told() -> None:
    ages = compared(["older"] * len(AGES_DAYS))
    assert ages.apart == pytest.approx(5 / 6)
    assert not ages.ok


def test_a_system_that_serves_no_ages_is_not_taken_for_one_that_does() -> None:
    nothing = Ages(np.zeros(7), np.full(7, 1 / 7), 0)
    assert not nothing.ok


def test_the_comparison_is_written_by_bucket() -> None:
    told = compared().to_json()
    assert set(told) == {"served", "held_out", "apart", "profiles"}
    assert told["served"]["month"] == pytest.approx(1 / 3)
