"""Where the session that is live begins within a profile's window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.domain.compiled import compiled
from stream.domain.interactions import InteractionArray, one_after_the_other


class Session(NamedTuple):
    """A session, as far as the window holds it."""

    id: str
    length: int
    """Interactions."""


_MASK: Final = (1 << 64) - 1

NO_SESSION: Final = Session("", 0)
"""That of an empty window."""


def live_sessions(windows: Sequence[InteractionArray], gap_s: int) -> list[Session]:
    """The session that each window ends in.

    A session ends when nothing happens for more than `gap_s` after the latest end so far, so a late
    event may join two sessions. Its id is made of its first interaction in the window, so that it
    is the same whoever computes it; it changes when an earlier interaction turns up.
    """
    rows, begin = one_after_the_other(windows)
    live = np.zeros((len(windows), 3), np.int64)
    _find_live(rows, begin, gap_s * 1000, live)
    return [
        Session(f"{start_ms}-{key & _MASK:016x}", length) if length else NO_SESSION
        for length, start_ms, key in live.tolist()
    ]


@compiled
def _find_live(
    rows: InteractionArray, begin: NDArray[np.int64], gap_ms: int, live: NDArray[np.int64]
) -> None:
    """Length, start and key of the first interaction of each window's last session, `[B, 3]`."""
    for window in range(len(live)):
        first, end = begin[window], begin[window + 1]
        if first == end:
            continue
        busy_until = rows[first].end_ms
        for row in range(first + 1, end):
            if rows[row].start_ms - busy_until > gap_ms:
                first = row
            busy_until = max(busy_until, rows[row].end_ms)
        live[window, 0] = end - first
        live[window, 1] = rows[first].start_ms
        live[window, 2] = rows[first].key
