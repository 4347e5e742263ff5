"""The catalogue as the simulated members meet it: when titles and episodes come, and how they pull.

Suffixes name shapes: T titles, G genres, K kinds, R release ages, D days, N rows of a call.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from fm_intent.data import contract
from lab.simulator import netflix
from stream.domain.labels import GENRES, KINDS, RELEASE_AGE_EDGES_DAYS

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from lab.simulator.parameters import SimulatorParameters

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

MOVIE: Final = KINDS.index("movie")
SHOW: Final = KINDS.index("show")

_SHORT_EPISODES: Final = {"children": 15, "anime": 24, "comedy": 26, "talk-show": 30}
_EPISODE_MINUTES: Final = 46
_LONG_AGO: Final = -100_000
_DAYS_BEYOND: Final = 3
"""The last sessions end after the last day."""


@dataclass(frozen=True, slots=True)
class SimulatorCatalogue:
    """T titles in NumPy columns. Days count from 1970 but where they index a table.

    Attributes:
        title_ids: T ids.
        names: T names.
        table: The catalogue's table in the contract on disk.
        first_day: First day of the simulation.
        genres_TG: Which genres a title has.
        kind_T: Index into `KINDS`.
        release_day_T: Day of release.
        duration_T: Seconds of the film or of one episode.
        seasons_T: Number of seasons, 1 for a film.
        episodes_T: Episodes of one season, 1 for a film.
        season_day_T: Day on which the last season begins to come.
        weekly_T: Whether the last season comes one episode a week, and not at once.
        popularity_T: Log popularity.
        taste_TC: Position of the title in the members' space of taste, unit variance.
        age_DT: Index into `RELEASE_AGES`, by day of the simulation.
        arrival_DT: Weight of a title for having come lately, by day of the simulation; 0 before it
            came.
    """

    title_ids: NDArray[np.object_]
    names: NDArray[np.object_]
    table: pa.Table
    first_day: int
    genres_TG: Bools  # noqa: N815
    kind_T: Ints  # noqa: N815
    release_day_T: Ints  # noqa: N815
    duration_T: Floats  # noqa: N815
    seasons_T: Ints  # noqa: N815
    episodes_T: Ints  # noqa: N815
    season_day_T: Ints  # noqa: N815
    weekly_T: Bools  # noqa: N815
    popularity_T: Floats  # noqa: N815
    taste_TC: Floats  # noqa: N815
    age_DT: NDArray[np.int8]  # noqa: N815
    arrival_DT: Floats  # noqa: N815

    def episode_day(self, titles: Ints, season: Ints, episode: Ints) -> Ints:
        """Day from which an episode can be watched; all but the last season's are long there."""
        day = self.season_day_T[titles] + 7 * self.weekly_T[titles] * (episode - 1)
        last = season >= self.seasons_T[titles]
        return np.where(last, day, _LONG_AGO).astype(np.int64)


def load(parameters: SimulatorParameters, rng: Generator) -> SimulatorCatalogue:
    """The Netflix catalogue with what it lacks drawn by `rng`: episodes, popularity, taste."""
    titles = netflix.titles()
    count = len(titles)
    genre_lists = titles["genres"].to_pylist()
    genres = np.zeros((count, len(GENRES)), dtype=bool)
    for index, listed in enumerate(genre_lists):
        genres[index, [GENRES.index(genre) for genre in listed]] = True
    is_show = np.asarray(titles["kind"].to_pylist()) == "show"
    episode_minutes = np.array(
        [
            min((_SHORT_EPISODES.get(genre, _EPISODE_MINUTES) for genre in listed), default=30)
            for listed in genre_lists
        ]
    ) * rng.uniform(0.85, 1.15, count)
    film_s = titles["duration_s"].fill_null(0).to_numpy()
    duration = np.where(is_show, np.round(episode_minutes * 60), film_s).astype(np.float64)
    genre_taste = rng.normal(size=(len(GENRES), parameters.taste_dimensions))
    taste = (genres @ genre_taste) / np.maximum(genres.sum(1, keepdims=True), 1) ** 0.5
    taste = 0.7 * taste + 0.7 * rng.normal(size=taste.shape)

    first_day = (parameters.first_day - dt.date(1970, 1, 1)).days
    added_day = titles["added_day"].to_numpy().astype(np.int64)
    release_day = titles["release_day"].to_numpy().astype(np.int64)
    seasons = titles["seasons"].fill_null(1).to_numpy().astype(np.int64)
    comes_new = is_show & (seasons > 1) & (added_day < first_day)
    comes_new &= rng.random(count) < parameters.new_season
    new_day = first_day + rng.integers(0, parameters.days, count)
    season_day = np.where(comes_new, new_day, added_day)
    weekly = is_show & (season_day >= first_day) & (rng.random(count) < parameters.weekly)

    days = first_day + np.arange(parameters.days + _DAYS_BEYOND)[:, None]
    newest = np.where(season_day <= days, season_day, added_day)
    novelty = np.exp(-np.maximum(days - newest, 0) / parameters.arrival_days)
    arrival = np.where(added_day <= days, np.exp(parameters.arrival_pull * novelty), 0.0)
    age = np.searchsorted(RELEASE_AGE_EDGES_DAYS, days - release_day, side="right")
    table = contract.table(
        contract.CATALOGUE_SCHEMA,
        {name: titles[name] for name in ("title_id", "name", "kind", "genres", "release_day")}
        | {"duration_s": pa.array(duration.astype(np.float32))},
    )
    return SimulatorCatalogue(
        title_ids=np.array(titles["title_id"].to_pylist(), dtype=object),
        names=np.array(titles["name"].to_pylist(), dtype=object),
        table=table,
        first_day=first_day,
        genres_TG=genres,
        kind_T=np.where(is_show, SHOW, MOVIE),
        release_day_T=release_day,
        duration_T=duration,
        seasons_T=seasons,
        episodes_T=np.where(is_show, rng.integers(6, 14, count), 1),
        season_day_T=season_day,
        weekly_T=weekly,
        popularity_T=rng.normal(scale=parameters.popularity_spread, size=count),
        taste_TC=taste,
        age_DT=age.astype(np.int8),
        arrival_DT=arrival,
    )
