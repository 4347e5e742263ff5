"""Has the loops compiled that a worker's batches need, so that no event waits for it."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.online.row_encoding import RowEncoder
from stream.domain.batch_states import BatchStates
from stream.domain.catalogue import Catalogue
from stream.domain.event_types import PLAY
from stream.domain.heads import HEADS
from stream.domain.interactions import INTERACTION
from stream.domain.prediction import Intents
from stream.domain.row_building import intent_rows
from stream.domain.rules import Rules
from stream.domain.sessions import live_sessions
from stream.domain.taking_in import EVENT
from stream.domain.window import windows_of

_PLAYS: Final = 3


def warm_up() -> None:
    """Take a profile through all that compiles: some seconds once, then what reading it takes."""
    rules = Rules(window_length=_PLAYS - 1)  # so that one of them is dropped and remembered
    events, plays = np.zeros(_PLAYS, EVENT), np.zeros(_PLAYS, INTERACTION)
    events["has_state"], plays["verb"] = 1, PLAY
    plays["key"] = plays["start_ms"] = events["at_ms"] = np.arange(_PLAYS)
    events["at_ms"] += 1
    new = BatchStates.decoded([None], rules)
    new.take_in(events, plays, [""] * _PLAYS, rules, lateness_ms=_PLAYS)
    states = BatchStates.decoded(new.encoded(new.touched()))
    windows_of(["nobody"], states, rules)
    nothing = np.zeros((1, 1), np.float32)
    rows = intent_rows(
        ["nobody"],
        states,
        live_sessions(states, gap_s=0),
        Intents(
            probs={head.name: np.zeros((1, len(head.labels)), np.float32) for head in HEADS},
            intent_attention=nothing,
            intent_embedding=nothing,
            intent_cluster=np.zeros((1, 1), np.int32),
            next_title_hash=np.zeros((1, 1), np.int64),
            next_title_score=nothing,
            title_log_norm=nothing,
            user_embedding=nothing,
            model_version=[""],
        ),
        Catalogue(),
        now_ms=0,
    )
    RowEncoder("")(rows)
