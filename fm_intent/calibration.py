"""How far the probabilities of a head are what happens: reliability, and the error of it.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Reliability:
    """Answers by their confidence, in bins of equal width; empty bins are left out.

    Attributes:
        confidence: mean probability of the likeliest label, a bin each.
        right: share of the label in what came, a bin each.
        count: answers in each bin.
        error: expected calibration error, the mean distance of the two, weighed by `count`.
    """

    confidence: tuple[float, ...]
    right: tuple[float, ...]
    count: tuple[int, ...]
    error: float


def reliability(probs: NDArray[np.float32], came: NDArray[np.float32]) -> Reliability | None:
    """The reliability of N answers; None where there is none.

    Args:
        probs: `[N, C]`.
        came: `[N, C]`, the share of each label in what came; rows of zeros are passed over.
    """
    known = came.sum(1) > 0
    probs, came = probs[known], came[known]
    if not len(probs):
        return None
    likeliest = probs.argmax(1)
    rows = np.arange(len(probs))
    confidence, right = probs[rows, likeliest], came[rows, likeliest]
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    count = np.bincount(place, minlength=_BINS)
    filled = count > 0
    means = [
        np.bincount(place, values, _BINS)[filled] / count[filled] for values in (confidence, right)
    ]
    error = float((np.abs(means[0] - means[1]) * count[filled]).sum() / len(probs))
    return Reliability(
        tuple(means[0].tolist()), tuple(means[1].tolist()), tuple(count[filled].tolist()), error
    )
