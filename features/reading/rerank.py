"""Re-ranks a search's candidates on a profile's live intent, and says why.

A candidate's score is the sum of four terms, each times its weight:

- `engine_score`: the engine's own score, standardised over the query's candidates, because engines
  score on scales of their own. Where the engine gives no scores, 1 / log2(1 + place) takes their
  part, the discount of NDCG.
- `genre_match`, `kind_match`, `embedding_match`: the features of the on-demand view
  `intent_title_match`, each less its mean over the candidates that have it. `embedding_match` is
  the log of the model's own probability that the title is played next. A candidate that lacks a
  feature counts as average in it: for example in `embedding_match` where title and profile are of
  two model versions.

So each term of a candidate says how far it stands out among the candidates, and the terms of its
explanation add up to its score.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from features.reading.intents import ANCHOR, Freshness
from features.reading.rows import Found, Wanted, open_source
from features.schema.title_match import intent_title_match
from features.schema.views import MATCH_INPUTS, SEARCH_RERANK, profile_intent, title_profile
from stream.exceptions import CandidatesError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stream.settings import Settings


@dataclass(frozen=True, slots=True)
class Weights:
    """What each term counts; the fields are the terms, in their order.

    The defaults lie between what `features.reading.learning.learn` makes of MovieLens-1M and of
    simulated members, behind an engine that knows the profile's history, but for genres: the
    embedding knows them already, so a learnt weight is about nothing or less, and where titles have
    no embedding it is above 1. Learn your own from what your members chose.
    """

    engine_score: float = 0.7
    genre_match: float = 0.5
    kind_match: float = 0.5
    embedding_match: float = 0.4

    @classmethod
    def read(cls, path: Path) -> Weights:
        """The weights in a JSON file; a field that it lacks has its default.

        Raises:
            WeightsError: when the file can't be read, or holds anything but finite weights.
        """
        try:
            weights: Weights = TypeAdapter(cls).validate_json(path.read_bytes(), extra="forbid")
        except (OSError, ValidationError) as error:
            raise WeightsError(
                f"{path} is no file of weights: {error}; write a JSON object with "
                f"{', '.join(TERMS)}"
            ) from error
        if not all(map(math.isfinite, weights.vector())):
            raise WeightsError(f"{path} holds a weight that is not finite; learn the weights again")
        return weights

    def vector(self) -> NDArray[np.float64]:
        """`[len(TERMS)]`."""
        return np.array([getattr(self, name) for name in TERMS])


TERMS: Final = tuple(field.name for field in fields(Weights))
MATCHES: Final = TERMS[1:]
"""The terms that are features of `intent_title_match`."""

_OF_PROFILE: Final = (*MATCH_INPUTS[profile_intent.name], ANCHOR)
_OF_TITLE: Final = MATCH_INPUTS[title_profile.name]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A title that the engine found; `score` is the engine's, on any scale, higher is better."""

    title_id: str
    score: float | None = None


class Order(StrEnum):
    """The order that an answer's candidates are in."""

    INTENT = "intent"
    """Re-ranked on the live intent."""
    ENGINE = "engine"
    """The engine's own: the profile has no intent, or one of a session that has ended."""


@dataclass(frozen=True, slots=True)
class ScoreTerm:
    """What one term adds to a candidate's score.

    Attributes:
        term: A name in `TERMS`.
        value: The engine's score or the feature, as it was read; None where there is none.
        contribution: What it adds to the score.
    """

    term: str
    value: float | None
    contribution: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate in its new place.

    Attributes:
        title_id: The title.
        engine_place: Its place in the engine's order, from 1.
        score: The sum of the contributions; None in the engine's order.
        reasons: One for each term, the largest contribution first; none in the engine's order.
    """

    title_id: str
    engine_place: int
    score: float | None
    reasons: tuple[ScoreTerm, ...]


@dataclass(frozen=True, slots=True)
class Reranking:
    """The answer to one query.

    Attributes:
        profile_id: The profile that was asked for.
        order: Whose order the candidates are in.
        freshness: Of the profile's intent.
        age_ms: Milliseconds since the newest event in the intent; None where absent.
        model_version: The version that made the intent; None where absent.
        candidates: All candidates, best first.
    """

    profile_id: str
    order: Order
    freshness: Freshness
    age_ms: int | None
    model_version: str | None
    candidates: tuple[Ranked, ...]


def score_terms(
    engine_score: NDArray[np.float64], matches: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The terms of one query's candidates before they are weighted, `[C, len(TERMS)]`.

    Args:
        engine_score: `[C]`.
        matches: `[C, len(MATCHES)]`; NaN where a candidate lacks the feature.
    """
    engine = engine_score - engine_score.mean()
    spread = engine.std()
    known = ~np.isnan(matches)
    values = np.where(known, matches, 0.0)
    mean = values.sum(0) / np.maximum(known.sum(0), 1)
    return np.column_stack(
        [engine / spread if spread else engine, np.where(known, values - mean, 0.0)]
    )


def place_scores(count: int) -> NDArray[np.float64]:
    """`[count]`, scores for candidates in an order that is all the engine tells."""
    scores: NDArray[np.float64] = 1 / np.log2(np.arange(count) + 2.0)
    return scores


class Reranker:
    """Re-ranks candidates on `search_rerank_v1`, from threads or from an event loop.

    One re-ranker serves either threads or one event loop: its connections belong to that loop.
    """

    def __init__(
        self,
        settings: Settings,
        weights: Weights | None = None,
        fresh_for_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open no connection yet.

        Args:
            settings: Where the store is.
            weights: By default those in the file that the settings name, else those of `Weights`.
            fresh_for_s: Age, in seconds, up to which an intent is used; by default the idle time
                that ends a session.
            clock: Unix time in seconds.

        Raises:
            WeightsError: when the settings name a file that holds no weights.
            DefinitionsError: when the store is none of Redis, and Feast's registry lacks this
                release's definitions or can't be read.
        """
        if weights is None:
            path = settings.rerank_weights
            weights = Weights.read(path) if path else Weights()
        self._weights = weights.vector()
        self._source = open_source(settings, SEARCH_RERANK)
        self._fresh_for_ms = (settings.session_gap_s if fresh_for_s is None else fresh_for_s) * 1000
        self._clock = clock

    def rerank(self, profile_id: str, candidates: Sequence[Candidate]) -> Reranking:
        """The candidates in the order of the profile's live intent; one read of the store.

        Args:
            profile_id: Who searches.
            candidates: In the engine's order; either all have a score or none.

        Raises:
            CandidatesError: when there are none, or their scores can't be compared.
            StoreUnavailableError: when the store can't be read now; keep the engine's order.
            StoreRefusedError: when the store answers with an error that needs an operator.
            DefinitionsError: when another release has replaced the registry's definitions, or
                written a feature as another type.
        """
        engine_score = _engine_scores(candidates)
        found = self._source.read(_wanted(profile_id, candidates))
        return self._ranked(profile_id, candidates, engine_score, *found)

    async def rerank_async(self, profile_id: str, candidates: Sequence[Candidate]) -> Reranking:
        """Like `rerank`, without blocking the event loop for the read."""
        engine_score = _engine_scores(candidates)
        found = await self._source.read_async(_wanted(profile_id, candidates))
        return self._ranked(profile_id, candidates, engine_score, *found)

    async def close(self) -> None:
        """Close the connections that `rerank_async` opened."""
        await self._source.close()

    def _ranked(
        self,
        profile_id: str,
        candidates: Sequence[Candidate],
        engine_score: NDArray[np.float64],
        intent: Found,
        titles: Found,
    ) -> Reranking:
        if intent.columns[ANCHOR][0] is None:
            return Reranking(
                profile_id, Order.ENGINE, Freshness.ABSENT, None, None, _as_found(candidates)
            )
        age_ms = max(0, int(self._clock() * 1000) - intent.events_ms[0])
        version = intent.columns["model_version"][0] or ""
        if age_ms > self._fresh_for_ms:
            return Reranking(
                profile_id, Order.ENGINE, Freshness.STALE, age_ms, version, _as_found(candidates)
            )
        matches = _matches(candidates, intent, titles)
        ranked = _by_intent(candidates, engine_score, matches, self._weights)
        return Reranking(profile_id, Order.INTENT, Freshness.FRESH, age_ms, version, tuple(ranked))


def _engine_scores(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    if not candidates:
        raise CandidatesError("there is no candidate; give at least one title")
    scores = [candidate.score for candidate in candidates if candidate.score is not None]
    if not scores:
        return place_scores(len(candidates))
    if len(scores) < len(candidates):
        raise CandidatesError(
            f"{len(scores)} of {len(candidates)} candidates have a score; give all of them one, "
            "or none"
        )
    if not all(map(math.isfinite, scores)):
        raise CandidatesError("a candidate's score is not finite; leave the scores out")
    return np.array(scores)


def _wanted(profile_id: str, candidates: Sequence[Candidate]) -> list[Wanted]:
    title_ids = [candidate.title_id for candidate in candidates]
    return [
        Wanted(profile_intent, _OF_PROFILE, [profile_id]),
        Wanted(title_profile, _OF_TITLE, title_ids),
    ]


def _matches(candidates: Sequence[Candidate], intent: Found, titles: Found) -> NDArray[np.float64]:
    """`[C, len(MATCHES)]` of what was read of `C` candidates; NaN for null.

    The on-demand view's own function computes them, as it does when Feast is asked for the view.
    """
    inputs = {name: intent.columns[name] * len(candidates) for name in _OF_PROFILE}
    inputs |= titles.columns
    inputs[title_profile.join_key] = [candidate.title_id for candidate in candidates]
    columns = intent_title_match(inputs)
    return np.array([columns[name] for name in MATCHES], np.float64).T


def _as_found(candidates: Sequence[Candidate]) -> tuple[Ranked, ...]:
    return tuple(
        Ranked(candidate.title_id, place, None, ()) for place, candidate in enumerate(candidates, 1)
    )


def _by_intent(
    candidates: Sequence[Candidate],
    engine_score: NDArray[np.float64],
    matches: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> Iterator[Ranked]:
    contributions = score_terms(engine_score, matches) * weights
    # Stable, so that equals stay as the engine had them.
    order = np.argsort(-contributions.sum(1), kind="stable").tolist()
    added, read = contributions.tolist(), matches.tolist()
    for index in order:
        values = (candidates[index].score, *read[index])
        reasons = [
            ScoreTerm(term, None if value is None or math.isnan(value) else value, contribution)
            for term, value, contribution in zip(TERMS, values, added[index], strict=True)
        ]
        reasons.sort(key=lambda reason: -abs(reason.contribution))
        yield Ranked(candidates[index].title_id, index + 1, sum(added[index]), tuple(reasons))
