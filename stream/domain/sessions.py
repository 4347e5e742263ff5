"""Where sessions begin and end within a profile's window."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.domain.interactions import InteractionArray


class Session(NamedTuple):
    """A session, as far as the window holds it."""

    id: str
    length: int
    """Interactions."""


NO_SESSION: Final = Session("", 0)
"""That of an empty window."""


def session_starts(window: InteractionArray, gap_s: int) -> NDArray[np.intp]:
    """Where in a window each session starts, `[S]` ascending indices.

    A session ends when nothing happens for more than `gap_s` after the latest end so far, so a late
    event may join two sessions.
    """
    if not len(window):
        return np.empty(0, np.intp)
    busy_until = np.maximum.accumulate(window["end_ms"])[:-1]
    idle = window["start_ms"][1:] - busy_until > gap_s * 1000
    return np.concatenate([[0], np.flatnonzero(idle) + 1]).astype(np.intp)


def live_session(window: InteractionArray, gap_s: int) -> Session:
    """The session that a window ends in.

    Its id is made of the session's first interaction in the window, so that it is the same whoever
    computes it; it changes when an earlier interaction turns up.
    """
    if not len(window):
        return NO_SESSION
    start = session_starts(window, gap_s)[-1]
    first = window[start]
    key = int(first["key"]) & 0xFFFF_FFFF_FFFF_FFFF
    return Session(f"{int(first['start_ms'])}-{key:016x}", len(window) - int(start))
