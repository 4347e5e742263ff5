from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as learn

from fm_intent import ranking_metrics

SCORES = np.array([[3, 1, 2, 0], [0, 5, 5, 1], [1, 1, 1, 1]], np.float32)


def test_a_rank_counts_the_candidates_ahead() -> None:
    assert ranking_metrics.ranks(SCORES[:1], np.array([0])).tolist() == [0]
    assert ranking_metrics.ranks(SCORES[:1], np.array([1])).tolist() == [2]


def test_equal_scores_count_as_ahead() -> None:
    assert ranking_metrics.ranks(SCORES[1:], np.array([1, 2])).tolist() == [1, 3]


def test_a_score_that_is_not_a_number_never_helps() -> None:
    scores = np.array([[np.nan, 1, 2], [np.nan, np.nan, np.nan]], np.float32)
    assert ranking_metrics.ranks(scores, np.array([0, 1])).tolist() == [2, 2]


def test_seen_titles_are_not_ahead_of_anything() -> None:
    seen = np.array([[True, False, False, False]])
    assert ranking_metrics.ranks(SCORES[:1], np.array([1]), seen).tolist() == [1]


def test_a_target_that_was_seen_is_still_ranked() -> None:
    seen = np.array([[True, True, False, False]])
    assert ranking_metrics.ranks(SCORES[:1], np.array([1]), seen).tolist() == [1]


def test_metrics_have_the_values_computed_by_hand() -> None:
    rank = np.array([0, 2, 9, 10, 150])
    found = ranking_metrics.next_title_metrics(rank)
    assert found["hr10"] == pytest.approx(3 / 5)
    assert found["ndcg10"] == pytest.approx((1 + 1 / 2 + 1 / np.log2(11)) / 5)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 10 + 1 / 11 + 1 / 151) / 5)
    assert found["recall100"] == pytest.approx(4 / 5)


def test_average_precision_has_the_value_computed_by_hand() -> None:
    probs = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32)
    positive = np.array([[True, False, True], [True, False, False]])
    assert ranking_metrics.average_precisions(probs, positive) == pytest.approx(
        [(1 + 2 / 3) / 2, 1 / 3]
    )


def test_title_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 150)).astype(np.float32)
    target = rng.integers(150, size=200)
    relevant = np.eye(150, dtype=np.int64)[target]
    found = ranking_metrics.next_title_metrics(ranking_metrics.ranks(scores, target))
    labels = np.arange(150)
    assert found["ndcg10"] == pytest.approx(learn.ndcg_score(relevant, scores, k=10))
    assert found["mrr"] == pytest.approx(
        learn.label_ranking_average_precision_score(relevant, scores)
    )
    for name, at in (("hr10", 10), ("recall100", 100)):
        wanted = learn.top_k_accuracy_score(target, scores, k=at, labels=labels)
        assert found[name] == pytest.approx(wanted)


def test_average_precision_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    probs = rng.random((100, 34)).astype(np.float32)
    positive = rng.random((100, 34)) < 0.1
    positive[:, 3] = True
    wanted = learn.label_ranking_average_precision_score(positive, probs)
    assert ranking_metrics.average_precisions(probs, positive).mean() == pytest.approx(wanted)


def test_the_interval_covers_the_mean_is_repeatable_and_narrows_with_more_rows() -> None:
    values = ranking_metrics.gains(np.arange(200) % 30, 10)
    low, high = ranking_metrics.ci95(values)
    assert low < values.mean() < high
    assert [low, high] == ranking_metrics.ci95(values)
    narrow_low, narrow_high = ranking_metrics.ci95(np.tile(values, 16))
    assert (narrow_high - narrow_low) == pytest.approx((high - low) / 4, rel=0.2)


def test_the_interval_is_that_of_the_normal_distribution_on_many_rows() -> None:
    values = np.random.default_rng(2).normal(3, 2, 2000)
    half = 1.96 * values.std() / 2000**0.5
    assert ranking_metrics.ci95(values) == pytest.approx(
        [values.mean() - half, values.mean() + half], abs=half / 5
    )


def test_a_small_gain_on_the_same_rows_is_found_where_the_intervals_overlap() -> None:
    rng = np.random.default_rng(3)
    theirs = rng.random(300)
    ours = theirs + 0.02 + 0.01 * rng.normal(size=300)
    assert ranking_metrics.ci95(ours)[0] < ranking_metrics.ci95(theirs)[1]
    compared = ranking_metrics.paired(ours, theirs)
    assert compared.p < 1e-6
    assert compared.delta_pct == pytest.approx(100 * (ours.mean() / theirs.mean() - 1))


def test_noise_alone_is_no_gain() -> None:
    rng = np.random.default_rng(4)
    found = [ranking_metrics.paired(*rng.random((2, 200))).p for _ in range(200)]
    assert 0.01 < np.mean(np.array(found) < 0.05) < 0.1


def test_a_model_is_not_ahead_of_itself() -> None:
    values = np.random.default_rng(5).random(50)
    assert ranking_metrics.paired(values, values) == (0.0, 1.0)
    assert ranking_metrics.paired(np.zeros(5), np.zeros(5)) == (0.0, 1.0)
