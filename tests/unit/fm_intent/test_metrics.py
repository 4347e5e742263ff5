from __future__ import annotations

import numpy as np
import pytest

from fm_intent import metrics

SCORES = np.array([[3, 1, 2, 0], [0, 5, 5, 1], [1, 1, 1, 1]], np.float32)


def test_a_rank_counts_the_candidates_ahead() -> None:
    assert metrics.ranks(SCORES[:1], np.array([0])).tolist() == [0]
    assert metrics.ranks(SCORES[:1], np.array([1])).tolist() == [2]


def test_equal_scores_count_as_ahead() -> None:
    assert metrics.ranks(SCORES[1:], np.array([1, 2])).tolist() == [1, 3]


def test_a_score_that_is_not_a_number_never_helps() -> None:
    scores = np.array([[np.nan, 1, 2], [np.nan, np.nan, np.nan]], np.float32)
    assert metrics.ranks(scores, np.array([0, 1])).tolist() == [2, 2]


def test_seen_titles_are_not_ahead_of_anything() -> None:
    seen = np.array([[True, False, False, False]])
    assert metrics.ranks(SCORES[:1], np.array([1]), seen).tolist() == [1]


def test_a_target_that_was_seen_is_still_ranked() -> None:
    seen = np.array([[True, True, False, False]])
    assert metrics.ranks(SCORES[:1], np.array([1]), seen).tolist() == [1]


def test_metrics_have_the_values_computed_by_hand() -> None:
    rank = np.array([0, 2, 9, 10, 150])
    found = metrics.next_title_metrics(rank)
    assert found["hr10"] == pytest.approx(3 / 5)
    assert found["ndcg10"] == pytest.approx((1 + 1 / 2 + 1 / np.log2(11)) / 5)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 10 + 1 / 11 + 1 / 151) / 5)
    assert found["recall100"] == pytest.approx(4 / 5)


def test_average_precision_has_the_value_computed_by_hand() -> None:
    probs = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32)
    positive = np.array([[True, False, True], [True, False, False]])
    found = metrics.mean_average_precision(probs, positive)
    assert found == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 2)


def test_the_bootstrap_interval_covers_the_mean_and_is_repeatable() -> None:
    rank = np.arange(200) % 30
    low, high = metrics.bootstrap_ci95(rank, metrics.hit_rate)
    assert low < metrics.hit_rate(rank, 10) < high
    assert (low, high) == metrics.bootstrap_ci95(rank, metrics.hit_rate)
