"""The action type of each interaction, derived from what came before it.

Serving and training both call `action_types`, so that they can't disagree.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.domain.event_types import ACTION_OF_VERB, PLAY
from stream.domain.interactions import InteractionArray
from stream.domain.labels import ACTIONS
from stream.domain.profile_state import Rules, episode_of, is_finished, progress_of

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
    actions: NDArray[np.int8] = _BY_VERB[window["verb"]]
    plays = np.flatnonzero(window["verb"] == PLAY)
    if not len(plays):
        return actions
    furthest: dict[int, int] = dict(
        zip(memory["title"].tolist(), memory["progress"].tolist(), strict=True)
    )
    titles = window["title"][plays].tolist()
    progress = progress_of(window[plays], rules).tolist()
    for at, title, reached in zip(plays.tolist(), titles, progress, strict=True):
        before = furthest.get(title)
        if before is None:
            furthest[title] = reached
            continue
        episode, furthest_episode = episode_of(reached), episode_of(before)
        goes_on = episode > furthest_episode or (
            episode == furthest_episode and not is_finished(before)
        )
        actions[at] = _CONTINUE if goes_on else _REWATCH
        furthest[title] = max(before, reached)
    return actions
