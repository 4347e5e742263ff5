"""Rows for tests: one plain sample and a strategy over everything a row may hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from stream.domain.feature_row import IntentRow
from stream.domain.labels import ACTIONS, GENRES, INTENTS, RELEASE_AGES

SAMPLE = IntentRow(
    profile_id="p-1",
    action_probs=[1 / 7] * len(ACTIONS),
    action="discover",
    genre_probs=[1 / 34] * len(GENRES),
    genre="drama",
    kind_probs=[0.25, 0.75],
    kind="show",
    release_age_probs=[1 / 7] * len(RELEASE_AGES),
    release_age="older",
    intent_attention=[0.25] * len(INTENTS),
    intent_embedding=[0.5, -0.25, 1e-9],
    next_title_ids=["tt1", "tt2", "ein Zähler"],
    next_title_scores=[0.5, 0.25, 0.125],
    title_log_norm=7.5,
    user_embedding=[3.5, -2.0, 0.0],
    session_id="s-1",
    session_length=3,
    intent_cluster=-1,
    model_version="4",
    sequence_no=17,
    last_event_id="e-1",
    last_event_at_ms=1_700_000_000_123,
    published_at_ms=1_700_000_000_456,
)


def sample(**changes: Any) -> IntentRow:
    return replace(SAMPLE, **changes)


_floats = st.lists(st.floats(width=32, allow_nan=False), max_size=70)
_texts = st.text(st.characters(codec="utf-8"), max_size=40)
_int64 = st.integers(-(2**63), 2**63 - 1)
_times = st.integers(0, 4_000_000_000_000)

rows = st.builds(
    IntentRow,
    profile_id=_texts.filter(bool),
    action_probs=_floats,
    action=_texts,
    genre_probs=_floats,
    genre=_texts,
    kind_probs=_floats,
    kind=_texts,
    release_age_probs=_floats,
    release_age=_texts,
    intent_attention=_floats,
    intent_embedding=_floats,
    next_title_ids=st.lists(_texts, max_size=20),
    next_title_scores=_floats,
    title_log_norm=st.floats(width=32, allow_nan=False),
    user_embedding=_floats,
    session_id=_texts,
    session_length=_int64,
    intent_cluster=_int64,
    model_version=_texts,
    sequence_no=_int64,
    last_event_id=_texts,
    last_event_at_ms=_times,
    published_at_ms=_times,
)
