"""The two comparisons: a ranker with and without intents, an engine with and without re-ranking.

Each comes with a placebo: the same again, with every request reading the intents of another
profile. What is left of a lift then is none of the intents', so it has to be about nothing. The
ranker is also given the intents of the night before, which tells what their being live is worth.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from features.reading.learning import learn_weights
from features.reading.rerank import MATCHES, Weights, score_terms
from lab.bench.downstream import baseline, live_features
from lab.bench.downstream.ranker import Ranker
from lab.bench.downstream.significance import Lift, lift, ndcg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lab.bench.downstream.requests import Requests

ENGINE_SHARE: Final = 0.6
"""Of the requests before T2, the first, that the engine learns from; the weights from the rest, so
that they weigh an engine's scores for queries that it has not learnt from."""

_FEWEST_PROFILES: Final = 100
"""Fewer than these say nothing of a kind of target."""


@dataclass(frozen=True, slots=True)
class Part:
    """Requests of one part, and all that is known for them.

    Attributes:
        requests: R requests.
        without: `[R, C, len(baseline.FEATURES)]`.
        live: `[R, C, len(live.FEATURES)]`.
        nightly: the same, of the intents as they were the midnight before.
        placebo: the same, of the intents of other profiles.
    """

    requests: Requests
    without: NDArray[np.float32]
    live: NDArray[np.float32]
    nightly: NDArray[np.float32]
    placebo: NDArray[np.float32]

    def cut(self, share: float) -> tuple[Part, Part]:
        """This part in two, of which the first has this share of the requests."""
        at = round(share * len(self.requests))
        return self._of(slice(0, at)), self._of(slice(at, None))

    def _of(self, rows: slice) -> Part:
        return Part(
            self.requests.of(rows),
            self.without[rows],
            self.live[rows],
            self.nightly[rows],
            self.placebo[rows],
        )


def compare_rankers(training: Part, test: Part, *, seed: int) -> dict[str, Any]:
    """A ranker of the features without intents, and ones of these and the intents'."""
    there, asked = training.requests.there, test.requests.there
    without = Ranker(training.without, there, baseline.FEATURES, seed=seed)
    before = ndcg(without(test.without, asked))

    def informed(learnt: NDArray[np.float32], shown: NDArray[np.float32]) -> Any:
        names = (*baseline.FEATURES, *live_features.FEATURES)
        ranker = Ranker(_beside(training.without, learnt), there, names, seed=seed)
        return ranker, ndcg(ranker(_beside(test.without, shown), asked))

    with_, after = informed(training.live, test.live)
    _, nightly = informed(training.nightly, test.nightly)
    _, placebo = informed(training.placebo, test.placebo)
    profile = test.requests.profile
    return _lifts(test.requests, before, after, placebo) | {
        "nightly": asdict(lift(profile, before, nightly)),
        "live_over_nightly": asdict(lift(profile, nightly, after)),
        "trees": [without.trees, with_.trees],
        "gains_without": without.gains(10),
        "gains_with": with_.gains(10),
    }


def compare_engines(training: Part, test: Part, *, fresh_s: float, seed: int) -> dict[str, Any]:
    """An engine that knows all but intents, and its candidates re-ranked by learnt weights.

    A stale intent leaves the engine's order, as in `features.reading.rerank`; `any_age` tells what
    would be if every intent were used.

    Args:
        training: requests before T2.
        test: requests after T2.
        fresh_s: age up to which an intent is used, seconds.
        seed: of the engine.
    """
    engine_part, weights_part = training.cut(ENGINE_SHARE)
    engine = Ranker(engine_part.without, engine_part.requests.there, baseline.FEATURES, seed=seed)
    known = engine(weights_part.without, weights_part.requests.there)
    shown = engine(test.without, test.requests.there)

    def reranked(
        learnt: NDArray[np.float32], tested: NDArray[np.float32], up_to_s: float = fresh_s
    ) -> tuple[Weights, NDArray[np.float64]]:
        queries = [_terms(known, learnt, row) for row in _fresh_rows(learnt, up_to_s)]
        weights = learn_weights(queries, [0] * len(queries))
        scores = shown.copy()
        for row in _fresh_rows(tested, up_to_s):
            there = ~np.isnan(shown[row])
            scores[row, there] = _terms(shown, tested, row) @ weights.vector()
        return weights, ndcg(scores)

    before = ndcg(shown)
    weights, after = reranked(weights_part.live, test.live)
    _, placebo = reranked(weights_part.placebo, test.placebo)
    _, any_age = reranked(weights_part.live, test.live, np.inf)
    return _lifts(test.requests, before, after, placebo) | {
        "any_age": asdict(lift(test.requests.profile, before, any_age)),
        "weights": {name: round(value, 4) for name, value in asdict(weights).items()},
        "fresh": round(len(_fresh_rows(test.live, fresh_s)) / len(test.requests), 4),
    }


def _beside(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([one, other], axis=2)


def _terms(
    scores: NDArray[np.float64], features: NDArray[np.float32], row: int
) -> NDArray[np.float64]:
    """The re-ranker's terms of one request's candidates."""
    there = ~np.isnan(scores[row])
    matches = features[row, there, : len(MATCHES)].astype(np.float64)
    return score_terms(scores[row, there], matches)


def _fresh_rows(features: NDArray[np.float32], up_to_s: float) -> list[int]:
    """The requests that read an intent of at most this age."""
    age_s = np.expm1(features[:, 0, live_features.FEATURES.index("intent_age")])
    rows: list[int] = np.flatnonzero(age_s <= up_to_s).tolist()  # NaN where there was none
    return rows


def _lifts(
    requests: Requests,
    without: NDArray[np.float64],
    with_: NDArray[np.float64],
    placebo: NDArray[np.float64],
) -> dict[str, Any]:
    """The lift, the placebo's, and the lift by kind of target."""
    kinds = {
        "just_looked_at": requests.just_looked_at,
        "played_before": requests.played_before & ~requests.just_looked_at,
        "new_to_the_profile": ~requests.played_before & ~requests.just_looked_at,
    }
    by_target = {}
    for name, rows in kinds.items():
        if len(np.unique(requests.profile[rows])) >= _FEWEST_PROFILES:
            by_target[name] = asdict(lift(requests.profile[rows], without[rows], with_[rows]))
    whole: Lift = lift(requests.profile, without, with_)
    nothing = lift(requests.profile, without, placebo)
    return asdict(whole) | {"placebo": asdict(nothing), "by_target": by_target}
