"""How good an order is, and whether one way to order is better than another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

CUTOFF: Final = 10
_RESAMPLES: Final = 9_999


def ndcg(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """NDCG@10 `[R]` of scores `[R, C]` whose true candidate is column 0.

    NaN scores are no candidates. With one true candidate the ideal order scores 1. A candidate with
    the true one's score counts as ahead of it.
    """
    ahead = (scores[:, 1:] >= scores[:, :1]).sum(1)
    return np.where(ahead < CUTOFF, 1 / np.log2(ahead + 2.0), 0.0)


@dataclass(frozen=True, slots=True)
class Lift:
    """What one way gains on another, each profile counting once.

    Attributes:
        ndcg10_without: mean over profiles of their mean NDCG@10, the one way.
        ndcg10_with: the other way.
        lift_pct: by how much the second is above the first, in per cent of the first.
        ci95: of `lift_pct`, by bootstrap over profiles.
        p: two-sided, by a permutation test that swaps the two ways within profiles.
        profiles: how many there are.
        requests: how many there are.
    """

    ndcg10_without: float
    ndcg10_with: float
    lift_pct: float
    ci95: tuple[float, float]
    p: float
    profiles: int
    requests: int


def lift(
    profile: NDArray[np.int64],
    without: NDArray[np.float64],
    with_: NDArray[np.float64],
    seed: int = 0,
) -> Lift:
    """The lift of `with_` over `without`, both NDCG@10 `[R]` of the same requests.

    Requests of one profile are no independent draws, so profiles are what is resampled.
    """
    _, code, count = np.unique(profile, return_inverse=True, return_counts=True)
    before = np.bincount(code, without) / count
    after = np.bincount(code, with_) / count

    def percent(one: NDArray[Any], other: NDArray[Any], axis: int = -1) -> NDArray[Any]:
        gained: NDArray[Any] = 100 * (other.mean(axis) / one.mean(axis) - 1)
        return gained

    def gain(one: NDArray[Any], other: NDArray[Any], axis: int = -1) -> NDArray[Any]:
        gained: NDArray[Any] = other.mean(axis) - one.mean(axis)
        return gained

    resampled = stats.bootstrap(
        (before, after),
        percent,
        paired=True,
        n_resamples=_RESAMPLES,
        batch=500,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    permuted = stats.permutation_test(
        (before, after),
        gain,
        permutation_type="samples",
        n_resamples=_RESAMPLES,
        batch=500,
        rng=np.random.default_rng(seed),
    )
    interval = resampled.confidence_interval
    return Lift(
        ndcg10_without=round(float(before.mean()), 4),
        ndcg10_with=round(float(after.mean()), 4),
        lift_pct=round(float(percent(before, after)), 2),
        ci95=(round(float(interval.low), 2), round(float(interval.high), 2)),
        p=float(permuted.pvalue),
        profiles=len(before),
        requests=len(without),
    )
