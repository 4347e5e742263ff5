"""Ranking metrics of next-title prediction, from the rank of the one true title."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.int64]
"""`[N]`, the number of candidates ranked ahead of the true title: 0 is a perfect answer."""


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


def hit_rate(rank: Ranks, at: int) -> float:
    """Share of rows whose target is among the first `at`."""
    return float((rank < at).mean())


def ndcg(rank: Ranks, at: int) -> float:
    """Mean of 1 / log2(rank + 2) over rows, 0 for those beyond the first `at`."""
    return float(np.where(rank < at, 1 / np.log2(rank + 2.0), 0.0).mean())


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


def mean_average_precision(probs: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """Mean over rows of the average precision of a multi-label answer.

    Args:
        probs: `[N, C]`.
        positive: `[N, C]`, at least one in each row.
    """
    order = np.argsort(-probs, axis=1, kind="stable")
    hits = np.take_along_axis(positive, order, axis=1)
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return float(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean())


def bootstrap_ci95(
    rank: Ranks, metric: Callable[[Ranks, int], float], resamples: int = 1000
) -> tuple[float, float]:
    """95 % interval of `metric(rank, 10)` by resampling rows, always with the same draws."""
    rng = np.random.default_rng(0)
    values = [metric(rank[rng.integers(len(rank), size=len(rank))], 10) for _ in range(resamples)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
