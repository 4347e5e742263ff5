"""Rows for tests: one plain sample and a strategy over everything a row may hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from stream.domain.feature_row import IntentRow
from stream.domain.heads import HEADS
from stream.domain.intent_rows import IntentRows

SAMPLE = IntentRow(
    profile_id="p-1",
    probs={head.name: [1 / len(head.labels)] * len(head.labels) for head in HEADS}
    | {"kind": [0.25, 0.75]},
    labels={head.name: head.labels[-1] for head in HEADS}
    | {"action": "discover", "genre": "drama"},
    intent_attention=[1 / len(HEADS)] * len(HEADS),
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


def to_json(row: IntentRow) -> bytes:
    """The value of the row's record on `intent-features`."""
    return IntentRows.of([row]).to_json()[0]


def changed(row: IntentRow, **changes: Any) -> IntentRow:
    """The row with other values, by their published names."""
    return IntentRow.of(row.published() | changes)


def sample(**changes: Any) -> IntentRow:
    return changed(SAMPLE, **changes)


_floats = st.lists(st.floats(width=32, allow_nan=False), max_size=70)
_texts = st.text(st.characters(codec="utf-8"), max_size=40)
_int64 = st.integers(-(2**63), 2**63 - 1)
_times = st.integers(0, 4_000_000_000_000)

rows = st.builds(
    IntentRow,
    profile_id=_texts.filter(bool),
    probs=st.fixed_dictionaries({head.name: _floats for head in HEADS}),
    labels=st.fixed_dictionaries({head.name: _texts for head in HEADS}),
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
