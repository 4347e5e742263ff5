"""The members: their lasting traits, drawn once, and what the time of day makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lab.simulator.parts import ACTIONS
from lab.simulator.simulator_catalogue import MOVIE, SHOW
from stream.domain.labels import DEVICES, GENRES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.random import Generator
    from numpy.typing import NDArray

    from lab.simulator.parameters import SimulatorParameters
    from lab.simulator.simulator_catalogue import SimulatorCatalogue

COUNTRIES: Final = ("US", "GB", "DE", "FR", "BR", "IN", "JP", "MX")
_COUNTRY_WEIGHTS: Final = (0.34, 0.12, 0.1, 0.1, 0.12, 0.1, 0.06, 0.06)
_DEVICE_LEANING: Final = {"tv": 4.0, "mobile": 2.0, "web": 1.2, "tablet": 0.8, "console": 0.5}
_AGE_LEANING: Final = (1.2, 1.0, 1.5, 2.0, 2.0, 0.8, 0.6)

DAY_PARTS: Final = ("morning", "day", "evening", "night")
_DAY_PART_ENDS_H: Final = (11, 17, 22)
_NIGHT_UNTIL_H: Final = 5
_GENRE_TILT: Final[dict[str, tuple[float, ...]]] = {
    "children": (3.0, 1.5, 0.8, 0.3),
    "documentary": (1.2, 1.5, 1.0, 0.7),
    "science-nature": (1.2, 1.5, 1.0, 0.7),
    "talk-show": (1.5, 1.0, 1.0, 1.0),
    "horror": (0.3, 0.5, 1.0, 2.5),
    "thriller": (0.5, 0.7, 1.2, 1.8),
    "stand-up": (0.5, 0.7, 1.2, 2.0),
    "romance": (0.7, 0.9, 1.3, 1.0),
}
_DEVICE_TILT: Final[dict[str, tuple[float, ...]]] = {
    "tv": (0.5, 0.6, 1.5, 1.2),
    "mobile": (2.0, 1.8, 0.6, 1.0),
    "web": (1.0, 1.5, 0.8, 0.8),
}
"""How a genre's or device's share changes by `DAY_PARTS`; 1 where not named."""
_FILM_ODDS: Final = (0.7, 2.5)
"""Odds of wanting a film and not a show: at any other time, and on Friday to Sunday from 18 h."""
_DAY_WEIGHTS: Final = (0.9, 0.85, 0.9, 0.95, 1.2, 1.3, 1.2)
"""How many sessions start from Monday to Sunday."""

DAY_S: Final = 86_400.0
_MONDAY: Final = 4
"""1970-01-05, the first Monday."""


@dataclass(frozen=True, slots=True)
class Members:
    """Traits of M members.

    Attributes:
        sessions_per_day_M: Mean rate.
        peak_hour_M: Hour of day around which most sessions start, UTC.
        action_MA: Leaning over `ACTIONS`, sums to 1.
        genre_MG: Leaning over `GENRES`, sums to 1.
        movie_M: Probability of wanting a film and not a show.
        age_MR: Leaning over `RELEASE_AGES`, sums to 1.
        taste_MC: Position in the space of taste; dot product with a title's says how it fits.
        binge_M: Probability of going on with the next episode.
        device_MV: Leaning over `DEVICES`, sums to 1.
        country_M: Index into `COUNTRIES`.
    """

    sessions_per_day_M: NDArray[np.float64]  # noqa: N815
    peak_hour_M: NDArray[np.float64]  # noqa: N815
    action_MA: NDArray[np.float64]  # noqa: N815
    genre_MG: NDArray[np.float64]  # noqa: N815
    movie_M: NDArray[np.float64]  # noqa: N815
    age_MR: NDArray[np.float64]  # noqa: N815
    taste_MC: NDArray[np.float64]  # noqa: N815
    binge_M: NDArray[np.float64]  # noqa: N815
    device_MV: NDArray[np.float64]  # noqa: N815
    country_M: NDArray[np.int64]  # noqa: N815

    def genres(self, members: NDArray[np.int64], at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Long-run share of each genre in `members`' intents at that time of day, [N, G]."""
        return _tilted(self.genre_MG[members], _GENRE_TILT, GENRES, at_s)

    def devices(self, members: NDArray[np.int64], at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each device at that time of day, [N, V]."""
        return _tilted(self.device_MV[members], _DEVICE_TILT, DEVICES, at_s)

    def kinds(
        self, members: NDArray[np.int64], at_s: NDArray[np.float64], first_day: int
    ) -> NDArray[np.float64]:
        """Long-run share of each kind in `members`' intents at that time of the week, [N, K]."""
        film_time = (weekday(at_s, first_day) >= 4) & (at_s / 3600 % 24 >= 18)
        odds = self.movie_M[members] / (1 - self.movie_M[members])
        odds = odds * np.where(film_time, _FILM_ODDS[1], _FILM_ODDS[0])
        shares = np.empty((len(members), 2))
        shares[:, MOVIE], shares[:, SHOW] = odds / (1 + odds), 1 / (1 + odds)
        return shares


def draw(
    parameters: SimulatorParameters, catalogue: SimulatorCatalogue, rng: Generator, count: int
) -> Members:
    """`count` members, whose genres follow what the catalogue has most of."""
    weights = np.array([parameters.action_weights[action] for action in ACTIONS])
    share = catalogue.genres_TG.sum(0) / catalogue.genres_TG.sum()
    genre = rng.gamma(10.0 * share + 0.05 * (share > 0), size=(count, len(GENRES)))
    genre /= genre.sum(1, keepdims=True)
    own = rng.normal(size=(count, parameters.taste_dimensions))
    genre_centre = catalogue.genres_TG.T.astype(np.float64) @ catalogue.taste_TC
    genre_centre /= np.maximum(catalogue.genres_TG.sum(0)[:, None], 1)
    taste = 1.5 * genre @ genre_centre + own
    taste /= np.linalg.norm(taste, axis=1, keepdims=True)
    leaning = np.array([_DEVICE_LEANING.get(device, 0.0) for device in DEVICES])
    device = rng.gamma(leaning, size=(count, len(DEVICES)))
    return Members(
        sessions_per_day_M=parameters.sessions_per_day * rng.gamma(2.0, 0.5, count),
        peak_hour_M=rng.normal(20.5, 1.8, count) % 24,
        action_MA=rng.dirichlet(12.0 * weights, count),
        genre_MG=genre,
        movie_M=rng.beta(2.0, 2.0, count),
        age_MR=rng.dirichlet(_AGE_LEANING, count),
        taste_MC=taste,
        binge_M=rng.beta(6 * parameters.binge, 6 * (1 - parameters.binge), count),
        device_MV=device / device.sum(1, keepdims=True),
        country_M=rng.choice(len(COUNTRIES), count, p=_COUNTRY_WEIGHTS),
    )


def day_weights(days: int, first_day: int) -> NDArray[np.float64]:
    """Share of the sessions that start on each day, by day of the week."""
    starts_s = np.arange(days, dtype=np.float64) * DAY_S
    weights: NDArray[np.float64] = np.array(_DAY_WEIGHTS)[weekday(starts_s, first_day)]
    weights /= weights.sum()
    return weights


def weekday(at_s: NDArray[np.float64], first_day: int) -> NDArray[np.int64]:
    """0 for Monday to 6 for Sunday."""
    return (first_day - _MONDAY + (at_s // DAY_S).astype(np.int64)) % 7


def day_part(at_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index into `DAY_PARTS`."""
    hour = at_s / 3600 % 24
    part = np.searchsorted(_DAY_PART_ENDS_H, hour, side="right")
    return np.where(hour < _NIGHT_UNTIL_H, DAY_PARTS.index("night"), part).astype(np.int64)


def pick_rows(rng: Generator, weights: NDArray[Any]) -> NDArray[np.int64]:
    """One column index per row, drawn by that row's weights."""
    cumulative = weights.cumsum(1)
    draws = rng.random(len(weights)) * cumulative[:, -1]
    picked: NDArray[np.int64] = (cumulative <= draws[:, None]).sum(1)
    return picked.clip(max=weights.shape[1] - 1)


def _tilted(
    shares: NDArray[np.float64],
    tilts: Mapping[str, tuple[float, ...]],
    labels: tuple[str, ...],
    at_s: NDArray[np.float64],
) -> NDArray[np.float64]:
    table = np.array([tilts.get(label, (1.0,) * len(DAY_PARTS)) for label in labels]).T
    tilted: NDArray[np.float64] = shares * table[day_part(at_s)]
    tilted /= tilted.sum(1, keepdims=True)
    return tilted
