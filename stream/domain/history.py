"""Whole histories of profiles, for training: the serving session code without a window's bound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.domain.actions import action_types
from stream.domain.event_types import Event
from stream.domain.interactions import INTERACTION, Interaction, interaction_of, join
from stream.domain.profile_state import MEMORY
from stream.domain.progress import watched_ms, watched_share
from stream.domain.rules import Rules

EDITION: Final = 2
"""Raised when other histories come of the same events, so that kept ones are made anew."""


@dataclass(frozen=True, slots=True)
class History:
    """All interactions of one profile in (start_ms, key) order; every column is `[N]`.

    `device` is as in `INTERACTION`, `watched_ms` is `UNTOLD` where unknown.
    """

    title_hash: NDArray[np.int64]
    action: NDArray[np.int8]
    start_ms: NDArray[np.int64]
    watched_share: NDArray[np.float32]
    device: NDArray[np.uint32]
    watched_ms: NDArray[np.int64]


def histories(events: Iterable[Event], rules: Rules) -> dict[str, History]:
    """The history of every profile in `events`, which may come in any order.

    The same joins as in a `ProfileState`, ordered once at the end: a history has no window's edge
    that the order of arrival could matter at.
    """
    joined: dict[str, dict[int, Interaction]] = {}
    for event in events:
        interaction = interaction_of(event)
        if interaction is not None:
            known = joined.setdefault(event.profile_id, {})
            other = known.get(interaction.key)
            known[interaction.key] = join(other, interaction) if other else interaction
    return {profile: _history(known.values(), rules) for profile, known in joined.items()}


def _history(interactions: Iterable[Interaction], rules: Rules) -> History:
    # An interaction's first two fields are its place: (start_ms, key).
    window = np.array(sorted(interactions), INTERACTION)
    return History(
        title_hash=window["title"].copy(),
        action=action_types(np.empty(0, MEMORY), window, rules),
        start_ms=window["start_ms"].copy(),
        watched_share=watched_share(window, rules),
        device=window["device"].copy(),
        watched_ms=watched_ms(window),
    )
