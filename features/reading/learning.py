"""Learns the re-ranker's weights from what members chose: a conditional logit.

The chance that a candidate is chosen is the softmax of the scores over its query's candidates
(McFadden, "Conditional logit analysis of qualitative choice behavior", 1974). The negative
log-likelihood is convex in the weights.

Needs scipy: the extra `bench`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from features.reading.rerank import TERMS, Weights
from stream.exceptions import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_RIDGE: Final = 1e-3
"""Keeps a weight finite whose term alone tells every choice, or none."""


def learn_weights(queries: Sequence[NDArray[np.float64]], chosen: Sequence[int]) -> Weights:
    """The weights under which the choices are likeliest.

    Args:
        queries: Of each query its candidates' `score_terms`, `[C, len(TERMS)]`.
        chosen: Of each query the index of the candidate that was chosen.

    Raises:
        WeightsError: when there is no query.
    """
    if not queries:
        raise WeightsError("there is no query to learn weights from; collect choices first")
    longest = max(map(len, queries))
    # Padding scores minus infinity, so it is never chosen.
    mask = np.array([[0.0] * len(one) + [-np.inf] * (longest - len(one)) for one in queries])
    padded = np.zeros((len(queries), longest, len(TERMS)))
    for row, one in enumerate(queries):
        padded[row, : len(one)] = one
    taken = padded[np.arange(len(queries)), list(chosen)]

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = padded @ weights + mask
        log_total = logsumexp(scores, axis=1)
        chance = np.exp(scores - log_total[:, None])
        expected = np.einsum("rc,rcf->rf", chance, padded)
        value = (log_total - taken @ weights).mean() + _RIDGE / 2 * weights @ weights
        return float(value), (expected - taken).mean(0) + _RIDGE * weights

    found = minimize(loss, np.zeros(len(TERMS)), jac=True, method="L-BFGS-B")
    return Weights(*found.x.tolist())
