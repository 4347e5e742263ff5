"""Whether served release ages are distributed as those of the plays that members held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream.domain.event_types import PLAYS
from stream.domain.labels import RELEASE_AGE_EDGES_DAYS, RELEASE_AGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from features.reading.intents import LiveIntent

FARTHEST: Final = 0.5
"""Total variation that served ages may have from held-out ones. It was 0.06 on MovieLens-1M and
0.04 on MovieTweetings, there 0.38 for a network that had no time to learn; for plays that are moved
by the 13 years since, without their titles' release days, it is 0.87."""

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Ages:
    """Shares of the buckets `RELEASE_AGES` of the next play, which sum to 1.

    Attributes:
        served: mean of the profiles' features, float64 [A].
        held_out: of each profile's last play, float64 [A].
        profiles: how many profiles the features are of.
    """

    served: NDArray[np.float64]
    held_out: NDArray[np.float64]
    profiles: int

    @property
    def apart(self) -> float:
        """Total variation of the two, 0 where they are equal and 1 where they share nothing."""
        return float(np.abs(self.served - self.held_out).sum() / 2)

    @property
    def ok(self) -> bool:
        """Whether they are distributed alike."""
        return self.profiles > 0 and self.apart <= FARTHEST

    def to_json(self) -> dict[str, Any]:
        """All of it, by bucket."""
        return {
            "served": dict(zip(RELEASE_AGES, self.served.tolist(), strict=True)),
            "held_out": dict(zip(RELEASE_AGES, self.held_out.tolist(), strict=True)),
            "apart": self.apart,
            "profiles": self.profiles,
        }


def compare_ages(events: pa.Table, catalogue: pa.Table, intents: Sequence[LiveIntent]) -> Ages:
    """Compare what is served with what was held out.

    Args:
        events: with `profile_id`, `event_type`, `occurred_at_ms` and `title_id`, as the source has
            them: what was sent may be wrong in the same way as what is served.
        catalogue: with `title_id` and `release_day`, days since 1970-01-01 or null.
        intents: the profiles' features.
    """
    plays = events.filter(pc.is_in(events["event_type"], pa.array(PLAYS))).sort_by("occurred_at_ms")
    last = plays.group_by("profile_id", use_threads=False).aggregate(
        [("title_id", "last"), ("occurred_at_ms", "last")]
    )
    days = dict(zip(*(catalogue[c].to_pylist() for c in ("title_id", "release_day")), strict=True))
    ages = [
        at_ms // _DAY_MS - days[title]
        for title, at_ms in zip(
            last["title_id_last"].to_pylist(), last["occurred_at_ms_last"].to_pylist(), strict=True
        )
        if days.get(title) is not None
    ]
    buckets = np.searchsorted(RELEASE_AGE_EDGES_DAYS, ages, side="right")
    told = np.array(
        [probs for one in intents if one.row and (probs := one.row.probs["release_age"])]
    ).reshape(-1, len(RELEASE_AGES))
    return Ages(
        _shares(told.sum(0)), _shares(np.bincount(buckets, minlength=len(RELEASE_AGES))), len(told)
    )


def _shares(counts: NDArray[Any]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / max(counts.sum(), 1e-9)
    return shares
