"""From ratings to events, for sources that know who rated what and when, and nothing more.

A rating says that the member has seen the title by then. It becomes one `impression` and one
`play_complete` at the rating's time; there is no watch time, length or device to tell.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fm_intent.data import contract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_EPOCH: Final = dt.date(1970, 1, 1)


def events_from_ratings(
    source: str, users: pa.Array, titles: pa.Array, rated_at_s: NDArray[np.int64]
) -> pa.Table:
    """Events of N ratings, 2N rows in the order of the contract.

    Ids carry the rating's row in the publisher's file, zero-padded, so that ratings of one second
    stay in file order wherever events are ordered by time and then by id.

    Args:
        source: Put before every id.
        users: N user ids as strings, in file order.
        titles: N title ids as strings, in file order.
        rated_at_s: N Unix times in seconds, in file order.
    """
    order = np.argsort(rated_at_s, kind="stable")
    ratings = pc.binary_join_element_wise(
        source, pc.utf8_lpad(pa.array(order).cast(pa.string()), 7, "0"), "-"
    )
    profiles = pc.binary_join_element_wise(source, users.take(pa.array(order)), "-")
    twice = pa.array(np.repeat(np.arange(len(order)), 2))
    is_play = pa.array(np.tile([False, True], len(order)))
    ratings_twice = ratings.take(twice)
    columns: dict[str, Any] = {
        "event_id": pc.binary_join_element_wise(ratings_twice, pc.if_else(is_play, "p", "i"), "-"),
        "profile_id": profiles.take(twice),
        "event_type": pc.if_else(is_play, "play_complete", "impression"),
        "occurred_at_ms": pa.array(np.repeat(rated_at_s[order] * 1000, 2)),
        "title_id": titles.take(pa.array(np.repeat(order, 2))),
        "playback_id": pc.if_else(is_play, ratings_twice, pa.scalar(None, pa.string())),
    }
    # Rows of one second are in the order (rating, impression before play), which is their ids'.
    return contract.table(contract.EVENTS_SCHEMA, columns)


def release_days(years: Sequence[int | None]) -> pa.Array:
    """First day of each release year, as int32 days since 1970: only the year is known, if that."""
    days = [None if year is None else (dt.date(year, 1, 1) - _EPOCH).days for year in years]
    return pa.array(days, pa.int32())
