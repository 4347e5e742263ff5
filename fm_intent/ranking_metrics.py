"""Metrics of next-title and intent prediction, row by row; their intervals, and paired tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Ranks = NDArray[np.int64]
"""`[N]`, the number of candidates ranked ahead of the true title: 0 is a perfect answer."""

PerRow = NDArray[np.float64]
"""`[N]`, a metric's value for each row; the metric is their mean."""


def ranks(
    scores: NDArray[np.float32], target: NDArray[np.int64], seen: NDArray[np.bool_] | None = None
) -> Ranks:
    """Rank of each row's target among all candidates that may be proposed.

    A candidate with the target's score counts as ahead of it, so that a model can't gain by
    scoring everything alike.

    Args:
        scores: `[N, V]`, higher is better.
        target: `[N]`, the index of the true candidate.
        seen: `[N, V]`, candidates that may not be proposed; the target always may.

    Returns:
        `[N]` int64.
    """
    own = np.take_along_axis(scores, target[:, None], axis=1)
    ahead = ~(scores < own)
    if seen is not None:
        ahead &= ~seen
    np.put_along_axis(ahead, target[:, None], False, axis=1)
    rank: Ranks = ahead.sum(axis=1)
    return rank


def hits(rank: Ranks, at: int) -> PerRow:
    """1 where the target is among the first `at`, else 0."""
    return (rank < at).astype(np.float64)


def gains(rank: Ranks, at: int) -> PerRow:
    """1 / log2(rank + 2), 0 for those beyond the first `at`; its mean is NDCG."""
    return np.where(rank < at, 1 / np.log2(rank + 2.0), 0.0)


def hit_rate(rank: Ranks, at: int) -> float:
    """Share of rows whose target is among the first `at`."""
    return float(hits(rank, at).mean())


def ndcg(rank: Ranks, at: int) -> float:
    """Mean gain."""
    return float(gains(rank, at).mean())


def mrr(rank: Ranks) -> float:
    """Mean of 1 / (rank + 1) over rows."""
    return float((1 / (rank + 1.0)).mean())


def next_title_metrics(rank: Ranks) -> dict[str, float]:
    """`hr10`, `ndcg10`, `mrr` and `recall100` of these ranks.

    With one true title a row, recall is the hit rate.
    """
    return {
        "hr10": hit_rate(rank, 10),
        "ndcg10": ndcg(rank, 10),
        "mrr": mrr(rank),
        "recall100": hit_rate(rank, 100),
    }


def average_precisions(probs: NDArray[np.float32], positive: NDArray[np.bool_]) -> PerRow:
    """Average precision of each row's multi-label answer; its mean is mAP.

    Args:
        probs: `[N, C]`.
        positive: `[N, C]`, at least one in each row.
    """
    order = np.argsort(-probs, axis=1, kind="stable")
    found = np.take_along_axis(positive, order, axis=1)
    precision = found.cumsum(axis=1) / np.arange(1, found.shape[1] + 1)
    averages: PerRow = (precision * found).sum(axis=1) / found.sum(axis=1)
    return averages


def ci95(values: PerRow, resamples: int = 1000) -> list[float]:
    """Both ends of the mean's 95 % interval by bootstrap over rows, always with the same draws."""
    rng = np.random.default_rng(0)
    count = len(values)
    means = [values[rng.integers(count, size=count)].mean() for _ in range(resamples)]
    return [float(end) for end in np.quantile(means, [0.025, 0.975])]


class Paired(NamedTuple):
    """One model held against another on the same rows."""

    delta_pct: float
    """How much higher the one's mean is, in per cent of the other's."""

    p: float
    """Two-sided, of Student's paired test, that both means are equal."""


def paired(ours: PerRow, theirs: PerRow) -> Paired:
    """Hold one model's values against another's, row by row.

    Student's test, which on means of hundreds of rows agrees with the bootstrap and the
    randomisation test (Smucker, Allan and Carterette, CIKM 2007) and needs no draws.
    """
    before = theirs.mean()
    delta = float(100 * (ours.mean() / before - 1)) if before else 0.0
    equal = bool((ours == theirs).all())
    return Paired(delta, 1.0 if equal else float(stats.ttest_rel(ours, theirs).pvalue))
