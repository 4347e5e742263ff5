from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fm_intent.data import histories
from fm_intent.data.histories import (
    COLUMNS,
    OFFSET,
    histories_folder,
    read_histories,
    read_plays,
)
from stream.domain.labels import ACTIONS, hash64


def test_histories_are_those_of_the_session_code(source: Path) -> None:
    found = read_histories(source)
    assert found.offset.tolist() == [0, 3, 6]
    ann = slice(0, 3)
    assert [ACTIONS[code] for code in found.action[ann]] == ["open", "discover", "search"]
    assert found.start_ms[ann].tolist() == [2_000, 3_000, 70_000]
    assert found.watched_share[ann].tolist() == [-1, 0.5, -1]


def test_histories_are_kept_until_the_events_change(source: Path) -> None:
    read_histories(source)
    kept = histories_folder(source)
    first = kept.stat().st_mtime_ns
    read_histories(source)
    assert kept.stat().st_mtime_ns == first
    events = pq.read_table(source / "events.parquet")
    pq.write_table(events.slice(0, 5), source / "events.parquet")
    assert read_histories(source).offset.tolist() == [0, 3]
    assert not kept.exists()


def test_histories_that_another_edition_of_the_session_code_made_are_not_read(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = read_histories(source).start_ms.tolist()
    kept = histories_folder(source)
    np.save(kept / "start_ms.npy", np.array(wanted) + 1)
    assert read_histories(source).start_ms.tolist() == [one + 1 for one in wanted]
    monkeypatch.setattr(histories, "EDITION", histories.EDITION + 1)
    assert read_histories(source).start_ms.tolist() == wanted
    assert not kept.exists()


def test_histories_are_mapped_into_memory(source: Path) -> None:
    assert all(
        isinstance(getattr(read_histories(source), name).base, np.memmap)
        for name in (OFFSET, *COLUMNS)
    )


def test_plays_keep_the_order_of_the_file_and_rare_titles_are_left_out(source: Path) -> None:
    found = read_plays(source, min_plays=1)
    assert found.title_hash.tolist() == [hash64("c"), hash64("b"), hash64("a")]
    with_rare_left_out = read_plays(source, min_plays=2)
    assert len(with_rare_left_out.title_hash) == 0


def test_plays_of_days_are_those_of_one_file(source: Path) -> None:
    whole = read_plays(source, min_plays=1)
    events = pq.read_table(source / "events.parquet")
    (source / "events.parquet").unlink()
    for day, some in enumerate((events[:7], events[7:]), start=1):
        folder = source / "events" / f"day=2026-01-0{day}"
        folder.mkdir(parents=True)
        pq.write_table(some, folder / "0.parquet")
    by_days = read_plays(source, min_plays=1)
    for expected, found in zip(whole, by_days, strict=True):
        assert np.asarray(found).tolist() == np.asarray(expected).tolist()


def test_both_ways_to_read_a_source_name_its_profiles(source: Path) -> None:
    assert np.asarray(read_histories(source).profile_id).tolist() == ["ann", "bob"]
    assert np.asarray(read_plays(source, min_plays=1).profile_id).tolist() == ["bob"]
