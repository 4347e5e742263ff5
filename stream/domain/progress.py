"""How much of a title was watched: shares of its duration, and how far its plays got."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.domain.compiled import compiled
from stream.domain.event_types import PLAY
from stream.domain.interactions import UNTOLD, InteractionArray
from stream.domain.rules import Rules

FINISHED_SHARE: Final = 0.9
"""A sitting that has watched this share of the duration has finished it."""

SHARE_STEPS: Final = 65_535
"""Of a watched share in a progress."""

_FINISHED: Final = FINISHED_SHARE * SHARE_STEPS
_UNKNOWN: Final = np.float32(-1)
_NONE: Final = np.float32(0)
_WHOLE: Final = np.float32(1)
_STEPS: Final = np.float32(SHARE_STEPS)


def watched_ms(interactions: InteractionArray) -> NDArray[np.int64]:
    """Milliseconds watched of each interaction, `[N] int64`; `UNTOLD` where unknown.

    A watch time of 0 beside a later position is what some formats write for none.
    """
    watched = np.empty(len(interactions), np.int64)
    _each_watched(interactions, watched)
    return watched


def watched_share(interactions: InteractionArray, rules: Rules) -> NDArray[np.float32]:
    """Watched share of each interaction, `[N] float32` in 0..1; -1 where it is unknown.

    Of a sitting whose watch time nobody told, its furthest position counts. The duration is the
    events', else the catalogue's; anything but a play has no share.
    """
    share = np.empty(len(interactions), np.float32)
    _each_share(interactions, *rules.durations.columns, share)
    return share


def progress_of(interactions: InteractionArray, rules: Rules) -> NDArray[np.int64]:
    """How far each play got, `[N] int64`: season, episode and share in one number.

    Its order is that of (season, episode, share), so that a maximum keeps the furthest episode and
    the largest share of it. A completed sitting counts as the full share, an unknown one as none.
    """
    progress = np.empty(len(interactions), np.int64)
    _each_progress(interactions, *rules.durations.columns, progress)
    return progress


@compiled
def is_finished(progress: int) -> bool:
    """Whether a title's progress has finished the episode (or film) that it got to."""
    return (progress & 0xFFFF) >= _FINISHED


@compiled
def episode_of(progress: int) -> int:
    """The furthest (season, episode) of a progress, as one ordered number; 0 for a film."""
    return progress >> 16


@compiled
def share_of(one: Any, titles: NDArray[np.int64], durations_ms: NDArray[np.int64]) -> np.float32:
    """`watched_share` of one interaction, by `Durations.columns`; for compiled loops."""
    if one.verb != PLAY:
        return _UNKNOWN
    duration = np.int64(one.duration_ms)
    if duration == 0 and len(titles):
        at = np.searchsorted(titles, one.title)
        if at < len(titles) and titles[at] == one.title:
            duration = durations_ms[at]
    watched = _watched(one)
    if duration <= 0 or watched == UNTOLD:
        return _UNKNOWN
    return np.float32(min(watched / max(np.float64(duration), 1.0), 1.0))


@compiled
def progress_at(one: Any, share: np.float32) -> int:
    """`progress_of` one interaction that has this `watched_share`; for compiled loops."""
    reached = _WHOLE if one.complete == 1 else max(share, _NONE)
    season, episode = np.int64(one.season), np.int64(one.episode)
    return int((season << 31) | (episode << 16) | np.int64(reached * _STEPS))


@compiled
def _watched(one: Any) -> np.int64:
    if one.watched_ms <= 0 and one.position_ms > 0:
        return np.int64(one.position_ms)
    return np.int64(one.watched_ms)


@compiled
def _each_watched(interactions: InteractionArray, out: NDArray[np.int64]) -> None:
    for row in range(len(interactions)):
        out[row] = _watched(interactions[row])


@compiled
def _each_share(
    interactions: InteractionArray,
    titles: NDArray[np.int64],
    durations_ms: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    for row in range(len(interactions)):
        out[row] = share_of(interactions[row], titles, durations_ms)


@compiled
def _each_progress(
    interactions: InteractionArray,
    titles: NDArray[np.int64],
    durations_ms: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:
    for row in range(len(interactions)):
        share = share_of(interactions[row], titles, durations_ms)
        out[row] = progress_at(interactions[row], share)
