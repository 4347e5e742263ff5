"""The downstream ranker: gradient-boosted trees that learn to order candidates (LambdaMART)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import lightgbm
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_PARAMETERS: Final = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": 10,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "num_threads": 1,
    "force_row_wise": True,
    "verbosity": -1,
}
_ROUNDS: Final = 600
_PATIENCE: Final = 40
_VALIDATION: Final = 0.2
"""Share of the training requests, the latest, on which the number of trees is chosen."""


class Ranker:
    """Orders candidates by their features.

    Args:
        features: `[R, C, F]` of requests in order of time, the true candidate in column 0.
        there: `[R, C]`, False where there is no candidate.
        names: F names.
        seed: of bagging.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        there: NDArray[np.bool_],
        names: Sequence[str],
        *,
        seed: int,
    ) -> None:
        last = round(len(features) * (1 - _VALIDATION))
        training = _dataset(features[:last], there[:last], names)
        self._trees = lightgbm.train(
            _PARAMETERS | {"seed": seed},
            training,
            num_boost_round=_ROUNDS,
            valid_sets=[_dataset(features[last:], there[last:], names, training)],
            callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
        )

    def __call__(
        self, features: NDArray[np.float32], there: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Scores `[R, C]`; NaN where there is no candidate."""
        scores = np.full(there.shape, np.nan)
        scores[there] = self._trees.predict(features[there])
        return scores

    @property
    def trees(self) -> int:
        """How many trees there are."""
        return int(self._trees.best_iteration)

    def gains(self, most: int) -> dict[str, float]:
        """The features that gain most, and their share of all gain."""
        gain = self._trees.feature_importance("gain", self._trees.best_iteration)
        names = self._trees.feature_name()
        best = np.argsort(-gain)[:most]
        return {names[one]: round(float(gain[one] / gain.sum()), 4) for one in best}


def _dataset(
    features: NDArray[np.float32],
    there: NDArray[np.bool_],
    names: Sequence[str],
    reference: Any = None,
) -> Any:
    # Backwards, so that among equal scores the true candidate comes last.
    features, there = features[:, ::-1], there[:, ::-1]
    label = np.zeros(there.shape, np.int8)
    label[:, -1] = 1
    return lightgbm.Dataset(
        features[there],
        label[there],
        group=there.sum(1),
        feature_name=list(names),
        reference=reference,
    )
