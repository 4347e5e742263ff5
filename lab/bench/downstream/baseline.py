"""Features that a ranker has without intents: of titles, of profiles, of both together.

Up to date to the request itself, so that intents can't win by freshness alone: the profile's
features know every play and look before it. Title counts are those of a nightly job, and similarity
is counted before T1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.sparse import csr_array

from lab.bench.downstream.source_history import DAY_MS, NO_TITLE, UNKNOWN_DAY, by_profile
from stream.domain.labels import KINDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lab.bench.downstream.requests import Requests
    from lab.bench.downstream.source_history import SourceHistory

TITLE: Final = (
    "plays_all",
    "plays_7d",
    "plays_30d",
    "trend",
    "plays_before_t1",
    "age_days",
    "kind",
    "genre",
    "genres",
)
PROFILE: Final = (
    "profile_plays",
    "profile_plays_1h",
    "profile_plays_24h",
    "profile_plays_7d",
    "profile_looks_1h",
    "since_play",
    "since_look",
    "since_first",
    "hour",
    "weekday",
    "show_share",
    "last_kind",
    "last_progress",
)
BOTH: Final = (
    "genre_affinity",
    "genre_affinity_10",
    "genre_affinity_last",
    "genre_affinity_look",
    "kind_affinity",
    "kind_affinity_10",
    "year_gap",
    "year_gap_10",
    "year_gap_last",
    "title_plays",
    "since_title_play",
    "title_progress",
    "title_looks",
    "since_title_look",
    "similar_mean",
    "similar_mean_10",
    "similar_max_10",
    "similar_last",
    "similar_look",
)
FEATURES: Final = (*TITLE, *PROFILE, *BOTH)

_RECENT: Final = 10
_HOUR_MS: Final = 3_600_000
_SHRINKAGE: Final = 10.0
"""Added to the norm of a similarity, so that titles few have played are like nothing much."""


class Baseline:
    """Computes `FEATURES` of requests.

    Args:
        history: everything; of it only what came before a request is used for it.
        t1_ms: where similarity ends, Unix milliseconds.
    """

    def __init__(self, history: SourceHistory, t1_ms: int) -> None:
        self._titles, self._plays, self._looks = history.titles, history.plays, history.looks
        profiles = len(history.profiles)
        self._plays_of = by_profile(self._plays.profile, profiles)
        self._looks_of = by_profile(self._looks.profile, profiles)
        genres = self._titles.genres
        self._genres = genres / np.maximum(genres.sum(1, keepdims=True), 1)
        self._first_day = int(self._plays.start_ms[0]) // DAY_MS
        self._plays_until = self._counted()
        before = self._plays.start_ms < t1_ms
        self._before_t1 = np.bincount(self._plays.title[before], minlength=len(genres))
        self._similar = self._similarity(before, profiles)

    def __call__(self, requests: Requests) -> NDArray[np.float32]:
        """`[R, C, len(FEATURES)]`; NaN where a feature is unknown, and where no candidate is."""
        found = np.full((*requests.candidates.shape, len(FEATURES)), np.nan, np.float32)
        for row, there in enumerate(requests.there):
            candidates = requests.candidates[row, there]
            found[row, there] = self._features(
                int(requests.profile[row]), int(requests.at_ms[row]), candidates
            )
        return found

    def _features(
        self, profile: int, at_ms: int, candidates: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        plays = self._plays_of[profile]
        plays = plays[: np.searchsorted(self._plays.start_ms[plays], at_ms, side="right")]
        looks = self._looks_of[profile]
        looks = looks[: np.searchsorted(self._looks.at_ms[looks], at_ms, side="right")]
        columns = (
            *self._of_titles(candidates, at_ms),
            *self._of_profile(plays, looks, at_ms),
            *self._of_both(candidates, plays, looks, at_ms),
        )
        return np.column_stack([np.broadcast_to(one, len(candidates)) for one in columns])

    def _of_titles(self, titles: NDArray[np.int64], at_ms: int) -> tuple[Any, ...]:
        # What a job of the night before has counted.
        day = at_ms // DAY_MS - self._first_day
        until = self._plays_until[day, titles]
        week = until - self._plays_until[max(day - 7, 0), titles]
        month = until - self._plays_until[max(day - 30, 0), titles]
        release = self._titles.release_day[titles]
        age = np.where(release == UNKNOWN_DAY, np.nan, at_ms // DAY_MS - release)
        return (
            np.log1p(until),
            np.log1p(week),
            np.log1p(month),
            np.log((week + 1) / (month / 4 + 1)),
            np.log1p(self._before_t1[titles]),
            age,
            self._titles.kind[titles],
            self._titles.primary[titles],
            self._titles.genres[titles].sum(1),
        )

    def _of_profile(
        self, plays: NDArray[np.intp], looks: NDArray[np.intp], at_ms: int
    ) -> tuple[Any, ...]:
        p = self._plays
        ago = at_ms - p.start_ms[plays]
        looked_ago = at_ms - self._looks.at_ms[looks]
        kind = self._titles.kind[p.title[plays]]
        return (
            np.log1p(len(plays)),
            np.log1p((ago <= _HOUR_MS).sum()),
            np.log1p((ago <= DAY_MS).sum()),
            np.log1p((ago <= 7 * DAY_MS).sum()),
            np.log1p((looked_ago <= _HOUR_MS).sum()),
            _log_s(ago[-1:]),
            _log_s(looked_ago[-1:]),
            _log_s(ago[:1]),
            at_ms // _HOUR_MS % 24,
            at_ms // DAY_MS % 7,
            _mean(kind == KINDS.index("show")),
            kind[-1] if len(kind) else np.nan,
            self._progress(plays[-1:], at_ms),
        )

    def _of_both(
        self,
        titles: NDArray[np.int64],
        plays: NDArray[np.intp],
        looks: NDArray[np.intp],
        at_ms: int,
    ) -> tuple[Any, ...]:
        t, played = self._titles, self._plays.title[plays]
        opened = self._looks.title[looks]
        opened = opened[opened != NO_TITLE]
        recent, last = played[-_RECENT:], played[-1:]
        kind, genres = t.kind[titles], self._genres[titles]
        year = np.where(t.release_day == UNKNOWN_DAY, np.nan, t.release_day / 365.25)

        def affinity(others: NDArray[np.int64]) -> Any:
            return genres @ self._genres[others].mean(0) if len(others) else np.nan

        def gap(others: NDArray[np.int64]) -> Any:
            return np.abs(year[titles] - np.nanmean(year[others])) if len(others) else np.nan

        def same_kind(others: NDArray[np.int64]) -> Any:
            return (t.kind[others] == kind[:, None]).mean(1) if len(others) else np.nan

        def similar(others: NDArray[np.int64]) -> NDArray[np.float32]:
            return self._similar[titles[:, None], others]

        count, last_play = _last_of_each(titles, played)
        looks_count, last_look = _last_of_each(titles, self._looks.title[looks])
        return (
            affinity(played),
            affinity(recent),
            affinity(last),
            affinity(opened[-1:]),
            same_kind(played),
            same_kind(recent),
            gap(played),
            gap(recent),
            gap(last),
            count,
            _log_s(at_ms - self._plays.start_ms[plays], last_play),
            self._progress(plays, at_ms, last_play),
            looks_count,
            _log_s(at_ms - self._looks.at_ms[looks], last_look),
            similar(played).mean(1) if len(played) else np.nan,
            similar(recent).mean(1) if len(played) else np.nan,
            similar(recent).max(1) if len(played) else np.nan,
            similar(last)[:, 0] if len(played) else np.nan,
            similar(opened[-1:])[:, 0] if len(opened) else np.nan,
        )

    def _progress(
        self, plays: NDArray[np.intp], at_ms: int, which: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """How far plays got, as far as that is known by then: their ends must have come."""
        over = self._plays.end_ms[plays] <= at_ms
        return _picked(np.where(over, self._plays.progress[plays], np.nan), which)

    def _counted(self) -> NDArray[np.int32]:
        """`[days + 1, T]`, plays of each title before each day."""
        day = self._plays.start_ms // DAY_MS - self._first_day
        titles = len(self._genres)
        counts = np.zeros((int(day[-1]) + 2, titles), np.int32)
        np.add.at(counts, (day + 1, self._plays.title), 1)
        until: NDArray[np.int32] = counts.cumsum(0, dtype=np.int32)
        return until

    def _similarity(self, before: NDArray[np.bool_], profiles: int) -> NDArray[np.float32]:
        """`[T, T]`, cosine of two titles' sets of profiles that played them, shrunk."""
        p, titles = self._plays, len(self._genres)
        pairs = np.unique(p.profile[before] * titles + p.title[before])
        ones = np.ones(len(pairs), np.float32)
        played = csr_array((ones, (pairs // titles, pairs % titles)), (profiles, titles))
        both = (played.T @ played).toarray()
        norm = np.sqrt(both.diagonal())
        np.fill_diagonal(both, 0)
        both /= np.outer(norm, norm) + _SHRINKAGE
        similarity: NDArray[np.float32] = both
        return similarity


def _last_of_each(
    titles: NDArray[np.int64], others: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """How often each title is among the others, and where last: -1 where never."""
    same = titles[:, None] == others
    count = same.sum(1)
    last = len(others) - 1 - same[:, ::-1].argmax(1) if len(others) else np.zeros(len(titles), int)
    return count, np.where(count > 0, last, -1)


def _picked(values: NDArray[Any], which: NDArray[np.intp] | None) -> NDArray[np.float64]:
    """Those of the values that are named; NaN for -1, and where there is no value at all."""
    if which is None:
        which = np.array([len(values) - 1])
    padded: NDArray[np.float64] = np.append(values, np.nan)
    return padded[which]


def _log_s(
    milliseconds: NDArray[np.int64], which: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Logarithm of seconds, of those that are named."""
    seconds: NDArray[np.float64] = np.log1p(_picked(milliseconds / 1000, which))
    return seconds


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")
