"""A tiny source on disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two profiles: one browses and plays, one plays three titles in a second."""
    rows = [
        ("e1", "ann", "impression", 1_000, "a", None, None),
        ("e2", "ann", "title_open", 2_000, "a", None, None),
        ("e3", "ann", "play_start", 3_000, "a", "p1", 0.0),
        ("e4", "ann", "play_stop", 63_000, "a", "p1", 60.0),
        ("e5", "ann", "search", 70_000, None, None, None),
        ("e6", "bob", "play_complete", 90_000, "c", "p2", None),
        ("e7", "bob", "play_complete", 90_000, "b", "p3", None),
        ("e8", "bob", "play_complete", 90_000, "a", "p4", None),
    ]
    names = ("event_id", "profile_id", "event_type", "occurred_at_ms")
    names += ("title_id", "playback_id", "watched_s")
    events = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    pq.write_table(events, tmp_path / "events.parquet")
    catalogue = pa.table(
        {
            "title_id": ["a", "b", "c", "d"],
            "name": ["A", "B", "C", "D"],
            "kind": ["movie", "show", None, "movie"],
            "genres": [["drama", "war"], [], ["comedy"], ["anime"]],
            "release_day": pa.array([10, None, -10, 0], pa.int32()),
            "duration_s": pa.array([120.0, None, None, None], pa.float32()),
        }
    )
    pq.write_table(catalogue, tmp_path / "catalogue.parquet")
    return tmp_path
