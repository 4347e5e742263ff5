"""Features of live intents: what a reader makes of a profile's row and a title's, together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from features.definitions import intent_title_match, profile_intent, title, title_profile
from features.reading.rerank import MATCHES
from lab.bench.downstream.source_history import DAY_MS, UNKNOWN_DAY
from stream.domain.heads import INTENTS
from stream.domain.labels import ACTIONS, RELEASE_AGE_EDGES_DAYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lab.bench.downstream.requests import Requests
    from lab.bench.downstream.source_history import TitleColumns

FEATURES: Final = (
    *MATCHES,
    "genre_match_above_mean",
    "embedding_match_above_mean",
    "embedding_match_rank",
    "release_age_match",
    "next_title_score",
    "next_title_place",
    "intent_age",
    "session_length",
    *(f"action_{name}" for name in ACTIONS),
    *(f"attention_{name}" for name in INTENTS),
)

_TITLE_INPUTS, _PROFILE_INPUTS = (
    [
        feature.name
        for feature in intent_title_match.source_feature_view_projections[view.name].features
    ]
    for view in (title_profile, profile_intent)
)


class Live:
    """Computes `FEATURES` of requests, with the on-demand view's own function.

    Args:
        titles: the catalogue.
        known: what Feast says of each title, in the catalogue's order.
    """

    def __init__(self, titles: TitleColumns, known: pd.DataFrame) -> None:
        self._titles = titles
        self._known = {name: [_plain(one) for one in known[name]] for name in _TITLE_INPUTS}
        self._code = {title_id: code for code, title_id in enumerate(titles.ids)}
        self._match: Callable[[dict[str, list[Any]]], dict[str, list[Any]]] = (
            intent_title_match.feature_transformation.udf
        )

    def __call__(self, requests: Requests, intents: pd.DataFrame) -> NDArray[np.float32]:
        """`[R, C, len(FEATURES)]`; NaN where a feature is unknown, and where no candidate is.

        Args:
            requests: R requests.
            intents: what each would have read of its profile, in their order.
        """
        found = np.full((*requests.candidates.shape, len(FEATURES)), np.nan, np.float32)
        rows = intents.to_dict("records")
        for row, there, at_ms, intent in zip(
            range(len(requests)), requests.there, requests.at_ms.tolist(), rows, strict=True
        ):
            if not pd.isna(intent["sequence_no"]):
                candidates = requests.candidates[row, there]
                found[row, there] = self._features(candidates, at_ms, intent)
        return found

    def _features(
        self, candidates: NDArray[np.int64], at_ms: int, intent: dict[str, Any]
    ) -> NDArray[np.float64]:
        codes = candidates.tolist()
        inputs = {name: [_plain(intent[name])] * len(codes) for name in _PROFILE_INPUTS}
        inputs |= {name: [values[code] for code in codes] for name, values in self._known.items()}
        inputs[title.join_key] = [self._titles.ids[code] for code in codes]
        matches = self._match(inputs)
        genre, kind, embedding = (np.array(matches[name], np.float64) for name in MATCHES)
        place = np.full(len(codes), np.nan)
        score = np.zeros(len(codes))
        for rank, (title_id, value) in enumerate(
            zip(intent["next_title_ids"], intent["next_title_scores"], strict=True)
        ):
            where = candidates == self._code.get(title_id, -1)
            place[where], score[where] = rank, value
        columns = (
            genre,
            kind,
            embedding,
            genre - _mean(genre),
            embedding - _mean(embedding),
            _place(embedding),
            self._age_match(candidates, at_ms, intent["release_age_probs"]),
            score,
            place,
            np.log1p(intent["age_s"]),
            intent["session_length"],
            *_or_unknown(intent["action_probs"], len(ACTIONS)),
            *intent["intent_attention"],
        )
        return np.column_stack([np.broadcast_to(one, len(codes)) for one in columns])

    def _age_match(self, titles: NDArray[np.int64], at_ms: int, probabilities: Any) -> Any:
        """Probability that the next title is of each title's age."""
        if not len(probabilities):
            return np.nan
        release = self._titles.release_day[titles]
        age = np.searchsorted(RELEASE_AGE_EDGES_DAYS, at_ms // DAY_MS - release, side="right")
        return np.where(release == UNKNOWN_DAY, np.nan, np.asarray(probabilities)[age])


def _plain(value: Any) -> Any:
    """A value as Feast's online store gives it: lists, and None for null."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is None or value is pd.NA or value != value else value


def _or_unknown(probabilities: Any, length: int) -> Any:
    return probabilities if len(probabilities) else [np.nan] * length


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _place(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the candidates that are above each; NaN where unknown."""
    return np.where(
        np.isnan(values), np.nan, (values[:, None] < values).sum(1) / max(1, len(values))
    )
