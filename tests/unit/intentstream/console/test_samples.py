from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentstream.console.samples import (
    increase,
    largest,
    named,
    parsed,
    quantile,
    quantiles,
    seconds_behind,
    total,
)

TEXT = """
# TYPE intentstream_events_total counter
intentstream_events_total{topic="browse-events",outcome="applied"} 5
intentstream_events_total{topic="playback-events",outcome="applied"} 7
intentstream_events_total{topic="playback-events",outcome="late"} 1
# TYPE intentstream_back_pressure gauge
intentstream_back_pressure 0
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 100
"""


def test_only_the_products_own_samples_are_kept_with_whose_they_are() -> None:
    found = parsed(TEXT, "here:1")
    assert len(found) == 4
    assert total(found, "intentstream_events_total") == {(): 13}
    assert total(found, "intentstream_events_total", "outcome") == {("applied",): 12, ("late",): 1}
    assert largest(found, "intentstream_back_pressure", "instance") == {("here:1",): 0}
    assert len(named(found, "intentstream_back_pressure")) == 1


def test_what_is_no_metrics_is_refused() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own
        parsed("<html>not metrics</html>\nintentstream_x{ 1 2 3", "here:1")


def test_a_counter_that_began_anew_has_grown_by_what_it_is() -> None:
    before, now = parsed(TEXT, "here:1"), parsed(TEXT.replace(" 7\n", " 2\n"), "here:1")
    assert total(increase(before, now), "intentstream_events_total") == {(): 2}


def test_a_series_that_is_new_began_at_nothing_unless_its_instance_is_new_too() -> None:
    before = parsed(TEXT.replace('outcome="late"', 'outcome="erased"'), "here:1")
    now = parsed(TEXT, "here:1") | parsed(TEXT, "there:1")
    assert total(increase(before, now), "intentstream_events_total", "instance") == {("here:1",): 1}


@pytest.mark.parametrize(
    ("share", "seconds"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 2.0), (1.0, 2.0)]
)
def test_a_quantile_lies_in_its_bucket_in_proportion(share: float, seconds: float) -> None:
    assert quantile({1.0: 50, 2.0: 50, inf: 100}, share) == pytest.approx(seconds)


def test_nothing_observed_has_no_quantile() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({1.0: 0, inf: 0}, 0.5) is None


@given(st.lists(st.floats(0.001, 100), min_size=1), st.floats(0, 1))
def test_a_quantile_is_no_further_from_the_true_one_than_its_bucket(
    amounts: list[float], share: float
) -> None:
    bounds = [2.0**n for n in range(-10, 8)]
    buckets = {bound: float(sum(one <= bound for one in amounts)) for bound in (*bounds, inf)}
    found = quantile(buckets, share)
    assert found is not None
    assert 0 <= found <= 2 * max(amounts)


def test_quantiles_are_told_by_the_label() -> None:
    text = "# TYPE intentstream_freshness_seconds histogram\n" + "".join(
        f'intentstream_freshness_seconds_bucket{{leg="{leg}",le="{le}"}} {count}\n'
        for leg, counts in (("whole", (0, 4, 4)), ("part", (4, 4, 4)))
        for le, count in zip(("1.0", "2.0", "+Inf"), counts, strict=True)
    )
    found = quantiles(parsed(text, "x"), "intentstream_freshness_seconds", "leg", [0.5])
    assert found == {"whole": [1.5], "part": [0.5]}


def test_a_group_at_the_end_is_not_behind() -> None:
    assert seconds_behind([(0, 5), (10, 9)], committed=9, now_s=20) == 0
    assert seconds_behind([], committed=0, now_s=20) == 0


def test_a_group_is_behind_since_the_end_passed_it() -> None:
    ends = [(0.0, 0), (10.0, 100), (20.0, 200)]
    assert seconds_behind(ends, committed=150, now_s=20) == pytest.approx(5)
    assert seconds_behind(ends, committed=0, now_s=20) == pytest.approx(20)


def test_a_group_that_was_behind_before_the_first_look_is_so_since_then_at_least() -> None:
    assert seconds_behind([(5.0, 10), (6.0, 10)], committed=3, now_s=8) == pytest.approx(3)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=20),
    st.integers(0, 500),
    st.integers(0, 500),
)
def test_who_has_committed_more_is_no_further_behind(
    grown: list[int], one: int, other: int
) -> None:
    ends, end = [], 0
    for at_s, more in enumerate(grown):
        end += more
        ends.append((float(at_s), end))
    less, more = sorted((one, other))
    now_s = float(len(grown))
    assert seconds_behind(ends, more, now_s) <= seconds_behind(ends, less, now_s) + 1e-9
