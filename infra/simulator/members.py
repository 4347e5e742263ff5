"""The members: their lasting traits, drawn once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from stream.taxonomy import ACTIONS, DEVICES, GENRES

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from infra.simulator.catalogue import Catalogue
    from infra.simulator.parameters import SimulatorParameters

COUNTRIES: Final = ("US", "GB", "DE", "FR", "BR", "IN", "JP", "MX")
_COUNTRY_WEIGHTS: Final = (0.34, 0.12, 0.1, 0.1, 0.12, 0.1, 0.06, 0.06)
_DEVICE_LEANING: Final = {"tv": 4.0, "mobile": 2.0, "web": 1.2, "tablet": 0.8, "console": 0.5}
_AGE_LEANING: Final = (1.2, 1.0, 1.5, 2.0, 2.0, 0.8, 0.6)


@dataclass(frozen=True, slots=True)
class Members:
    """Traits of M members.

    Attributes:
        sessions_per_day_M: mean rate.
        peak_hour_M: hour of day around which most sessions start, UTC.
        action_MA: leaning over `ACTIONS`, sums to 1.
        genre_MG: leaning over `GENRES`, sums to 1.
        movie_M: probability of wanting a film and not a show.
        age_MR: leaning over `RELEASE_AGES`, sums to 1.
        taste_MD: position in the space of taste; dot product with a title's says how it fits.
        binge_M: probability of going on with the next episode.
        device_MV: leaning over `DEVICES`, sums to 1.
        country_M: index into `COUNTRIES`.
    """

    sessions_per_day_M: NDArray[np.float64]  # noqa: N815
    peak_hour_M: NDArray[np.float64]  # noqa: N815
    action_MA: NDArray[np.float64]  # noqa: N815
    genre_MG: NDArray[np.float64]  # noqa: N815
    movie_M: NDArray[np.float64]  # noqa: N815
    age_MR: NDArray[np.float64]  # noqa: N815
    taste_MD: NDArray[np.float64]  # noqa: N815
    binge_M: NDArray[np.float64]  # noqa: N815
    device_MV: NDArray[np.float64]  # noqa: N815
    country_M: NDArray[np.int64]  # noqa: N815


def draw(parameters: SimulatorParameters, catalogue: Catalogue, rng: Generator) -> Members:
    """M members, whose genres follow what the catalogue has most of."""
    count = parameters.members
    weights = np.array([parameters.action_weights[action] for action in ACTIONS])
    share = catalogue.pool_size_GK.sum(1) / catalogue.pool_size_GK.sum()
    genre = rng.gamma(10.0 * share + 0.05 * (share > 0), size=(count, len(GENRES)))
    genre /= genre.sum(1, keepdims=True)
    own = rng.normal(size=(count, parameters.taste_dimensions))
    genre_centre = catalogue.genres_TG.T.astype(np.float64) @ catalogue.taste_TD
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
        taste_MD=taste,
        binge_M=rng.beta(6 * parameters.binge, 6 * (1 - parameters.binge), count),
        device_MV=device / device.sum(1, keepdims=True),
        country_M=rng.choice(len(COUNTRIES), count, p=_COUNTRY_WEIGHTS),
    )


def pick_rows(rng: Generator, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """One column index per row, drawn by that row's probabilities."""
    cumulative = probabilities.cumsum(1)
    draws = rng.random(len(probabilities)) * cumulative[:, -1]
    picked: NDArray[np.int64] = (cumulative <= draws[:, None]).sum(1)
    return picked.clip(max=probabilities.shape[1] - 1)
