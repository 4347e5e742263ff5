"""Has the loops compiled that a worker's batches need, so that no event waits for it."""

from __future__ import annotations

from typing import Final

from stream.domain import codec
from stream.domain.event_types import event_of
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules
from stream.domain.sessions import live_sessions
from stream.domain.window import window_batch

_PLAYS: Final = 3


def warm_up() -> None:
    """Take a profile through all that compiles: some seconds once, then what reading it takes."""
    rules = Rules(window_length=_PLAYS - 1)  # so that one of them is dropped and remembered
    plays = [
        event_of(
            {
                "event_id": str(number),
                "profile_id": "nobody",
                "occurred_at_ms": number,
                "event_type": "play_start",
                "title_id": str(number),
                "playback_id": str(number),
            }
        )
        for number in range(_PLAYS)
    ]
    state = codec.decode(codec.encode(state_of(plays, rules)))
    window_batch([("nobody", state)], rules)
    live_sessions([state.window], gap_s=0)
