"""The two comparisons: a ranker with and without intents, an engine with and without re-ranking.

Each comes with a placebo: the same again, with every request reading the intents of another
profile. What is left of a lift then is none of the intents', so it has to be about nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from features.learning import learn
from features.rerank import MATCHES, terms
from infra.bench.downstream import baseline, live
from infra.bench.downstream.ranker import Ranker
from infra.bench.downstream.significance import Lift, lift, ndcg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from infra.bench.downstream.requests import Requests

ENGINE_SHARE: Final = 0.6
"""Of the requests before T2, the first, that the engine learns from; the weights from the rest, so
that they weigh an engine's scores for queries that it has not learnt from."""

_FEWEST_PROFILES: Final = 30
"""Fewer than these say nothing of a kind of target."""


@dataclass(frozen=True, slots=True)
class Part:
    """Requests of one part, and all that is known for them.

    Attributes:
        requests: R requests.
        without: `[R, C, len(baseline.FEATURES)]`.
        live: `[R, C, len(live.FEATURES)]`.
        placebo: the same, of the intents of other profiles.
    """

    requests: Requests
    without: NDArray[np.float32]
    live: NDArray[np.float32]
    placebo: NDArray[np.float32]

    def first(self, share: float) -> tuple[Part, Part]:
        """This part in two, cut in time."""
        at = round(share * len(self.requests))
        early, late = slice(0, at), slice(at, None)
        one, two = (
            Part(self.requests.of(rows), self.without[rows], self.live[rows], self.placebo[rows])
            for rows in (early, late)
        )
        return one, two


def compare_rankers(training: Part, test: Part, *, seed: int) -> dict[str, Any]:
    """A ranker of the features without intents, and one of these and the live ones."""
    there, asked = training.requests.there, test.requests.there

    def ranked(extra: NDArray[np.float32] | None, shown: NDArray[np.float32] | None) -> Any:
        names: tuple[str, ...] = baseline.FEATURES
        learnt, tested = training.without, test.without
        if extra is not None and shown is not None:
            names = (*names, *live.FEATURES)
            learnt = np.concatenate([learnt, extra], axis=2)
            tested = np.concatenate([tested, shown], axis=2)
        ranker = Ranker(learnt, there, names, seed=seed)
        return ranker, ndcg(ranker(tested, asked))

    ranker, without = ranked(None, None)
    informed, with_ = ranked(training.live, test.live)
    _, placebo = ranked(training.placebo, test.placebo)
    return _lifts(test.requests, without, with_, placebo) | {
        "trees": [ranker.trees, informed.trees],
        "gains_without": ranker.gains(10),
        "gains_with": informed.gains(10),
    }


def compare_engines(training: Part, test: Part, *, fresh_s: float, seed: int) -> dict[str, Any]:
    """An engine that knows all but intents, and its candidates re-ranked by learnt weights.

    Beside it, under `popularity_engine`, an engine that sorts by the plays of the last month.

    Args:
        training: requests before T2.
        test: requests after T2.
        fresh_s: age up to which an intent is used, seconds.
        seed: of the engine.
    """
    engine_part, weights_part = training.first(ENGINE_SHARE)
    engine = Ranker(engine_part.without, engine_part.requests.there, baseline.FEATURES, seed=seed)
    asked = test.requests.there
    report = _reranked(
        weights_part,
        test,
        engine(weights_part.without, weights_part.requests.there),
        engine(test.without, asked),
        fresh_s,
    )
    month = baseline.FEATURES.index("plays_30d")
    popular = _reranked(
        weights_part, test, weights_part.without[..., month], test.without[..., month], fresh_s
    )
    return report | {"popularity_engine": popular}


def _reranked(
    training: Part,
    test: Part,
    known: NDArray[np.floating[Any]],
    shown: NDArray[np.floating[Any]],
    fresh_s: float,
) -> dict[str, Any]:
    """What re-ranking adds to the scores of an engine, `[R, C]` for training and test."""

    def scores(learnt: NDArray[np.float32], tested: NDArray[np.float32]) -> Any:
        fresh = _fresh(learnt, fresh_s)
        queries = [
            terms(engine[there].astype(float), matches[there][:, : len(MATCHES)].astype(float))
            for engine, matches, there in zip(
                known[fresh], learnt[fresh], training.requests.there[fresh], strict=True
            )
        ]
        weights = learn(queries, [0] * len(queries))
        found = np.where(test.requests.there, shown, np.nan).astype(float)
        for row in np.flatnonzero(_fresh(tested, fresh_s)):
            there = test.requests.there[row]
            matches = tested[row, there][:, : len(MATCHES)].astype(float)
            found[row, there] = terms(found[row, there], matches) @ weights.vector()
        return weights, ndcg(found)

    without = ndcg(np.where(test.requests.there, shown, np.nan))
    weights, with_ = scores(training.live, test.live)
    _, placebo = scores(training.placebo, test.placebo)
    return _lifts(test.requests, without, with_, placebo) | {
        "weights": {name: round(value, 4) for name, value in asdict(weights).items()},
        "fresh": round(float(_fresh(test.live, fresh_s).mean()), 4),
    }


def _fresh(features: NDArray[np.float32], fresh_s: float) -> NDArray[np.bool_]:
    age = np.expm1(features[:, 0, live.FEATURES.index("intent_age")])
    fresh: NDArray[np.bool_] = age <= fresh_s  # False where there is no intent
    return fresh


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
