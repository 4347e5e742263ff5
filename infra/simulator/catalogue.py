"""The catalogue as the simulated members meet it: shelves by genre, kind and release age."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from infra.sources import contract, netflix
from stream.taxonomy import GENRES, KINDS, RELEASE_AGE_EDGES_DAYS

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from infra.simulator.parameters import SimulatorParameters

MOVIE: Final = KINDS.index("movie")
SHOW: Final = KINDS.index("show")

_SHORT_EPISODES: Final = {"children": 15, "anime": 24, "comedy": 26, "talk-show": 30}
_EPISODE_MINUTES: Final = 46
_FIRST_DAY: Final = -40_000
_DAY_RANGE: Final = 100_000


@dataclass(frozen=True, slots=True)
class Catalogue:
    """T titles in NumPy columns, and P = genres x kinds pools of them for drawing shelves.

    Attributes:
        title_ids: T ids.
        names: T names.
        table: The catalogue's table in the contract on disk.
        genres_TG: bool, which genres a title has.
        kind_T: index into `KINDS`.
        release_day_T: int days since 1970.
        added_day_T: int days since 1970; nobody sees the title before.
        duration_T: seconds of the film or of one episode.
        seasons_T: number of seasons, 1 for a film.
        episodes_T: episodes of one season, 1 for a film.
        taste_TD: position of the title in the members' space of taste, unit variance.
    """

    title_ids: NDArray[np.object_]
    names: NDArray[np.object_]
    table: pa.Table
    genres_TG: NDArray[np.bool_]  # noqa: N815
    kind_T: NDArray[np.int64]  # noqa: N815
    release_day_T: NDArray[np.int64]  # noqa: N815
    added_day_T: NDArray[np.int64]  # noqa: N815
    duration_T: NDArray[np.float64]  # noqa: N815
    seasons_T: NDArray[np.int64]  # noqa: N815
    episodes_T: NDArray[np.int64]  # noqa: N815
    taste_TD: NDArray[np.float64]  # noqa: N815
    _pool_titles: NDArray[np.int64]
    _pool_keys: NDArray[np.int64]
    _pool_weight_before: NDArray[np.float64]
    pool_size_GK: NDArray[np.int64]  # noqa: N815

    def age(self, titles: NDArray[np.int64], day: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index into `RELEASE_AGES` of `titles` on `day` (broadcast together)."""
        days = day - self.release_day_T[titles]
        return np.searchsorted(RELEASE_AGE_EDGES_DAYS, days, side="right").astype(np.int64)

    def shelves(
        self,
        rng: Generator,
        genre: NDArray[np.int64],
        kind: NDArray[np.int64],
        age: NDArray[np.int64],
        day: NDArray[np.int64],
        length: int,
    ) -> NDArray[np.int64]:
        """For each of N wishes `length` titles, drawn by popularity, int64 [N, length].

        A shelf holds titles of the wished genre and kind whose release age is the wished one; where
        there are none on that day, of any age.
        """
        pool = genre * len(KINDS) + kind
        edges = np.array([0, *RELEASE_AGE_EDGES_DAYS, _DAY_RANGE])
        newest, oldest = day - edges[age], day - edges[age + 1]
        start, end = _key(pool, oldest) + 1, _key(pool, newest) + 1
        empty = self._rows_before(start) == self._rows_before(end)
        first = self._rows_before(np.where(empty, pool * _DAY_RANGE, start))
        last = self._rows_before(np.where(empty, (pool + 1) * _DAY_RANGE, end))
        low, high = self._pool_weight_before[first], self._pool_weight_before[last]
        draws = low[:, None] + rng.random((len(pool), length)) * (high - low)[:, None]
        at = np.searchsorted(self._pool_weight_before, draws, side="right") - 1
        drawn: NDArray[np.int64] = self._pool_titles[np.clip(at, first[:, None], last[:, None] - 1)]
        return drawn

    def _rows_before(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._pool_keys, keys).astype(np.int64)


def load(parameters: SimulatorParameters, rng: Generator) -> Catalogue:
    """The Netflix catalogue with what it lacks drawn by `rng`: episodes, popularity, taste."""
    titles = netflix.titles()
    count = len(titles)
    genre_lists = titles["genres"].to_pylist()
    genres = np.zeros((count, len(GENRES)), dtype=bool)
    for index, listed in enumerate(genre_lists):
        genres[index, [GENRES.index(genre) for genre in listed]] = True
    kind = np.where(np.asarray(titles["kind"].to_pylist()) == "show", SHOW, MOVIE)
    episode_minutes = np.array(
        [
            min((_SHORT_EPISODES.get(genre, _EPISODE_MINUTES) for genre in listed), default=30)
            for listed in genre_lists
        ]
    ) * rng.uniform(0.85, 1.15, count)
    film_s = titles["duration_s"].fill_null(0).to_numpy()
    duration = np.where(kind == SHOW, np.round(episode_minutes * 60), film_s).astype(np.float64)
    genre_taste = rng.normal(size=(len(GENRES), parameters.taste_dimensions))
    taste = (genres @ genre_taste) / np.maximum(genres.sum(1, keepdims=True), 1) ** 0.5
    taste = 0.7 * taste + 0.7 * rng.normal(size=taste.shape)
    release_day = titles["release_day"].to_numpy().astype(np.int64)

    row, genre = np.nonzero(genres)
    pool = genre * len(KINDS) + kind[row]
    keys = _key(pool, release_day[row])
    order = np.argsort(keys, kind="stable")
    popularity = np.exp(rng.normal(scale=1.3, size=count))
    weight_before = np.concatenate([[0.0], np.cumsum(popularity[row[order]])])
    table = contract.table(
        contract.CATALOGUE_SCHEMA,
        {name: titles[name] for name in ("title_id", "name", "kind", "genres", "release_day")}
        | {"duration_s": pa.array(duration.astype(np.float32))},
    )
    return Catalogue(
        title_ids=np.array(titles["title_id"].to_pylist(), dtype=object),
        names=np.array(titles["name"].to_pylist(), dtype=object),
        table=table,
        genres_TG=genres,
        kind_T=kind,
        release_day_T=release_day,
        added_day_T=titles["added_day"].to_numpy().astype(np.int64),
        duration_T=duration,
        seasons_T=titles["seasons"].fill_null(1).to_numpy().astype(np.int64),
        episodes_T=np.where(kind == SHOW, rng.integers(6, 14, count), 1),
        taste_TD=taste,
        _pool_titles=row[order],
        _pool_keys=keys[order],
        _pool_weight_before=weight_before,
        pool_size_GK=np.bincount(pool, minlength=len(GENRES) * len(KINDS)).reshape(-1, len(KINDS)),
    )


def _key(pool: NDArray[np.int64], day: NDArray[np.int64]) -> NDArray[np.int64]:
    """One sorted number line for all pools, each ordered by release day."""
    return pool * _DAY_RANGE + np.clip(day - _FIRST_DAY, 0, _DAY_RANGE - 1)
