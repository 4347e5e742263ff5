from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors lose more by handing work to other threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source of ratings."""
    return write_rated_source(tmp_path / "data" / "made-up")


def write_rated_source(folder: Path, *, repeats: bool = False) -> Path:
    """Twelve profiles of fifteen plays each, of twenty titles; none twice, but with `repeats`."""
    rng = np.random.default_rng(4)
    folder.mkdir(parents=True)
    played = np.concatenate([rng.permutation(20)[:15] for _ in range(12)])
    if repeats:
        played = rng.integers(20, size=len(played))
    count = len(played)
    ids = [f"{row:04d}" for row in range(count)]
    events = {
        "event_id": ids,
        "profile_id": [f"profile-{row // 15}" for row in range(count)],
        "event_type": ["play_complete"] * count,
        "occurred_at_ms": (np.arange(count) * 3_600_000).tolist(),
        "title_id": [f"title-{title}" for title in played],
        "playback_id": ids,
    }
    pq.write_table(pa.table(events), folder / "events.parquet")
    catalogue = {
        "title_id": [f"title-{title}" for title in range(20)],
        "name": [f"Title {title}" for title in range(20)],
        "kind": ["movie"] * 20,
        "genres": [["drama"] if title % 2 else ["comedy", "war"] for title in range(20)],
        "release_day": pa.array(range(0, -20_000, -1000), pa.int32()),
        "duration_s": pa.nulls(20, pa.float32()),
    }
    pq.write_table(pa.table(catalogue), folder / "catalogue.parquet")
    return folder
