"""Whole histories of profiles, for training: the serving session code without a window's bound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream.actions import action_types
from stream.events import Event
from stream.session import MEMORY, ProfileState, Rules, watched_share


@dataclass(frozen=True, slots=True)
class History:
    """All interactions of one profile in (start_ms, key) order; every column is `[N]`."""

    title_hash: NDArray[np.int64]
    action: NDArray[np.int8]
    start_ms: NDArray[np.int64]
    watched_share: NDArray[np.float32]
    device: NDArray[np.int8]
    watched_ms: NDArray[np.int64]


def histories(events: Iterable[Event], rules: Rules) -> dict[str, History]:
    """The history of every profile in `events`, which may come in any order."""
    unbounded = replace(rules, window_length=1 << 62)
    states: dict[str, ProfileState] = {}
    for event in events:
        states.setdefault(event.profile_id, ProfileState()).take_in(event, unbounded)
    return {profile: _history(state, unbounded) for profile, state in states.items()}


def _history(state: ProfileState, rules: Rules) -> History:
    window = state.window
    return History(
        title_hash=window["title"].copy(),
        action=action_types(np.empty(0, MEMORY), window, rules),
        start_ms=window["start_ms"].copy(),
        watched_share=watched_share(window, rules),
        device=window["device"].astype(np.int8),
        watched_ms=window["watched_ms"].astype(np.int64),
    )
