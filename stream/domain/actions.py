"""The action type of each interaction, derived from what came before it.

Serving and training both call `action_types`, so that they can't disagree.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.domain.compiled import compiled
from stream.domain.event_types import ACTION_OF_VERB, PLAY
from stream.domain.interactions import InteractionArray
from stream.domain.labels import ACTIONS
from stream.domain.progress import episode_of, is_finished, progress_at, watched_share
from stream.domain.rules import Rules

_CONTINUE: Final = ACTIONS.index("continue")
_REWATCH: Final = ACTIONS.index("rewatch")
_BY_VERB: Final = np.array(
    [ACTIONS.index(ACTION_OF_VERB[verb]) for verb in range(len(ACTION_OF_VERB))], np.int8
)


def action_types(memory: NDArray[Any], window: InteractionArray, rules: Rules) -> NDArray[np.int8]:
    """Action type of every interaction of a window, `[N] int8` indices into `ACTIONS`.

    A play is `discover` when the title was never played before; `continue` when it goes on with an
    unfinished film or episode, or with a later episode than any before; else `rewatch`.
    """
    actions = np.empty(len(window), np.int8)
    mark_actions(memory, window, watched_share(window, rules), actions)
    return actions


@compiled
def mark_actions(
    memory: NDArray[Any],
    window: InteractionArray,
    shares: NDArray[np.float32],
    actions: NDArray[np.int8],
) -> None:
    """Write `action_types` of a window with these watched shares; for compiled loops."""
    # An open table over the titles of the window: where it plays each of them first.
    size = 2
    while size < 2 * len(window):
        size *= 2
    first_play = np.full(size, -1, np.int64)
    furthest = np.empty(len(window), np.int64)
    for row in range(len(window)):
        one = window[row]
        actions[row] = _BY_VERB[one.verb]
        if one.verb != PLAY:
            continue
        reached = progress_at(one, shares[row])
        seat = one.title & (size - 1)
        while first_play[seat] >= 0 and window[first_play[seat]].title != one.title:
            seat = (seat + 1) & (size - 1)
        if first_play[seat] < 0:
            first_play[seat] = row
            before = _remembered(memory, one.title)
        else:
            before = furthest[first_play[seat]]
        if before >= 0:
            episode, furthest_episode = episode_of(reached), episode_of(before)
            goes_on = episode > furthest_episode or (
                episode == furthest_episode and not is_finished(before)
            )
            actions[row] = _CONTINUE if goes_on else _REWATCH
        furthest[first_play[seat]] = max(before, reached)


@compiled
def _remembered(memory: NDArray[Any], title: int) -> int:
    """The progress of a title in the memory; -1 where it isn't."""
    low, high = 0, len(memory)
    while low < high:
        middle = (low + high) >> 1
        if memory[middle].title < title:
            low = middle + 1
        else:
            high = middle
    if low < len(memory) and memory[low].title == title:
        return int(memory[low].progress)
    return -1
