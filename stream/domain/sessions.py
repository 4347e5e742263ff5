"""Where the session that is live begins within a profile's window."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.domain.batch_states import BatchStates
from stream.domain.compiled import compiled
from stream.domain.interactions import InteractionArray


class Session(NamedTuple):
    """A session, as far as the window holds it."""

    id: str
    length: int
    """Interactions."""


_MASK: Final = (1 << 64) - 1

NO_SESSION: Final = Session("", 0)
"""That of an empty window."""


def live_sessions(states: BatchStates, gap_s: int) -> list[Session]:
    """The session that each state's window ends in.

    A session ends when nothing happens for more than `gap_s` after the latest end so far, so a late
    event may join two sessions. Its id is made of its first interaction in the window, so that it
    is the same whoever computes it; it changes when an earlier interaction turns up.
    """
    live = np.zeros((len(states), 3), np.int64)
    _find_live(states.heads, states.windows, gap_s * 1000, live)
    return [
        Session(f"{start_ms}-{key & _MASK:016x}", length) if length else NO_SESSION
        for length, start_ms, key in live.tolist()
    ]


@compiled
def _find_live(
    heads: NDArray[Any], windows: InteractionArray, gap_ms: int, live: NDArray[np.int64]
) -> None:
    """Length, start and key of the first interaction of each window's last session, `[S, 3]`."""
    for number in range(len(heads)):
        window = windows[number, : heads[number].window]
        if len(window) == 0:
            continue
        first = 0
        busy_until = window[0].end_ms
        for row in range(1, len(window)):
            if window[row].start_ms - busy_until > gap_ms:
                first = row
            busy_until = max(busy_until, window[row].end_ms)
        live[number, 0] = len(window) - first
        live[number, 1] = window[first].start_ms
        live[number, 2] = window[first].key
