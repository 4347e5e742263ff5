"""Landed rows of erased profiles: refused, not read, and taken out of the files."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from features.offline.erasures import FOLDER, are_erased, joined, notes
from features.offline.landing import PartitionLanding, Published, lock
from features.offline.landing import landed as as_table
from features.offline.rewriting import Rewritten, rewrite
from stream.domain.feature_row import Erasure
from tests.unit.features.offline.test_landing import files, land, landed, records
from tests.unit.features.samples import SAMPLE, sample

if TYPE_CHECKING:
    from pathlib import Path

    from stream.domain.feature_row import IntentRow

AT_MS = SAMPLE.published_at_ms + 1_000
"""When the profile was erased: after its row was published."""

BEFORE = SAMPLE
AFTER = replace(SAMPLE, sequence_no=1, last_event_at_ms=AT_MS + 1, published_at_ms=AT_MS + 60)
OTHER = sample(profile_id="other")
ERASURE = Erasure(AT_MS, SAMPLE.last_event_at_ms)
LATER_MS = 2**62
"""Everything had been published and landed by then."""


def tombstone(offset: int, row: IntentRow = SAMPLE, erasure: Erasure = ERASURE) -> Published:
    return Published(offset, None, row.profile_id.encode(), erasure.to_headers())


def told(folder: Path) -> list[tuple[str, int]]:
    return sorted((row["profile_id"], row["sequence_no"]) for row in landed(folder))


def rewritten(folder: Path, passed_ms: int = LATER_MS) -> Rewritten | None:
    return rewrite(folder, passed_ms, lambda: False)


def test_rows_from_before_the_erasure_go_and_those_of_others_and_from_after_it_stay(
    tmp_path: Path,
) -> None:
    land(tmp_path, records([BEFORE, OTHER]), [tombstone(2)], records([AFTER], 3))
    names = files(tmp_path)
    assert rewritten(tmp_path) == Rewritten(rows=1, files=1, unreadable=0)
    assert told(tmp_path) == [("other", OTHER.sequence_no), (SAMPLE.profile_id, 1)]
    assert files(tmp_path) == names


def test_what_stays_is_as_it_was(tmp_path: Path) -> None:
    land(tmp_path, records([BEFORE, OTHER]), [tombstone(2)])
    before = next(row for row in landed(tmp_path) if row["profile_id"] == "other")
    rewritten(tmp_path)
    assert landed(tmp_path) == [before]


@pytest.mark.parametrize(
    "row",
    [
        BEFORE,
        replace(BEFORE, last_event_at_ms=AT_MS - 1, published_at_ms=AT_MS + 500),
        replace(BEFORE, last_event_at_ms=AT_MS + 500, published_at_ms=AT_MS - 1),
    ],
    ids=["published before", "under way when it was asked for", "of a clock that is ahead"],
)
def test_a_row_that_is_delivered_behind_its_erasure_does_not_land(
    tmp_path: Path, row: IntentRow
) -> None:
    land(tmp_path, [tombstone(0)])
    assert land(tmp_path, records([row], 1)) == {"erased": 1}


def test_rows_that_are_delivered_again_after_they_were_taken_out_do_not_land_again(
    tmp_path: Path,
) -> None:
    batch = [*records([BEFORE, OTHER]), tombstone(2)]
    land(tmp_path, batch)
    rewritten(tmp_path, passed_ms=0)
    again = land(tmp_path, batch)
    assert (again["landed"], again["erased"], again["repeated"]) == (0, 1, 1)
    assert told(tmp_path) == [("other", OTHER.sequence_no)]


def test_rows_and_tombstone_that_are_delivered_again_when_the_note_is_gone_leave_nothing(
    tmp_path: Path,
) -> None:
    batch = [*records([BEFORE, OTHER]), tombstone(2)]
    land(tmp_path, batch)
    rewritten(tmp_path)
    assert notes(tmp_path) == []
    land(tmp_path, batch[:1], batch[1:])
    rewritten(tmp_path)
    assert told(tmp_path) == [("other", OTHER.sequence_no)]


def test_rows_in_files_of_other_partitions_go_too(tmp_path: Path) -> None:
    moved = PartitionLanding(tmp_path, "intent-features", 3, 1)
    assert moved.own()
    moved.land(records([BEFORE]))
    land(tmp_path, [tombstone(0)])
    assert rewritten(tmp_path) == Rewritten(1, 1, 0)
    moved.close()


def test_a_note_stays_until_all_that_was_published_by_then_has_landed(tmp_path: Path) -> None:
    land(tmp_path, records([BEFORE]), [tombstone(1)])
    (note,) = notes(tmp_path)
    rewritten(tmp_path, note.noted_at_ms)
    assert notes(tmp_path) == [note]
    rewritten(tmp_path, note.noted_at_ms + 1)
    assert notes(tmp_path) == []
    assert rewritten(tmp_path) is None


def test_a_note_stays_while_a_file_can_not_be_read_and_the_others_are_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    land(tmp_path, records([BEFORE]), [tombstone(1)])
    damaged = tmp_path / "date=2020-01-01" / "hour=00" / "x.parquet"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"PAR1 no more")
    assert rewritten(tmp_path) == Rewritten(rows=1, files=1, unreadable=1)
    assert len(notes(tmp_path)) == 1
    assert str(damaged) in caplog.text


def test_who_is_told_to_end_ends_between_two_files_and_drops_no_note(tmp_path: Path) -> None:
    land(tmp_path, records([BEFORE]), [tombstone(1)])
    assert rewrite(tmp_path, LATER_MS, lambda: True) == Rewritten(0, 0, 0)
    assert len(notes(tmp_path)) == 1


def test_one_process_at_a_time_takes_rows_out(tmp_path: Path) -> None:
    land(tmp_path, records([BEFORE]), [tombstone(1)])
    with lock(tmp_path, "erasures"):
        assert rewritten(tmp_path) is None
    assert rewritten(tmp_path) == Rewritten(1, 1, 0)


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_file_is_whole_whenever_the_rewriting_dies_and_the_next_one_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    land(tmp_path, records([BEFORE, OTHER]), [tombstone(2)])
    before = landed(tmp_path)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else type(tmp_path), call, die)
        with pytest.raises(KeyboardInterrupt):
            rewritten(tmp_path)
    assert landed(tmp_path) == before
    assert rewritten(tmp_path) == Rewritten(1, 1, 0)
    assert not [path for path in tmp_path.rglob(".*") if path.suffix == ".anew"]
    assert told(tmp_path) == [("other", OTHER.sequence_no)]


def test_a_tombstone_of_others_erases_nothing(tmp_path: Path) -> None:
    land(tmp_path, records([BEFORE]), [Published(1, None, SAMPLE.profile_id.encode(), ())])
    assert notes(tmp_path) == []


def test_the_last_erasure_of_a_profile_counts(tmp_path: Path) -> None:
    later = Erasure(AT_MS + 5_000, AFTER.last_event_at_ms)
    land(tmp_path, [tombstone(0, erasure=later)], [tombstone(1)])
    assert joined(notes(tmp_path)) == {SAMPLE.profile_id: later}


def test_a_note_that_is_damaged_is_named_and_nothing_lands_meanwhile(tmp_path: Path) -> None:
    land(tmp_path, [tombstone(0)])
    (note,) = (tmp_path / FOLDER).iterdir()
    note.write_bytes(b"{")
    with pytest.raises(OSError, match=f"{note.name} is no note"):
        land(tmp_path, records([OTHER], 1))
    assert files(tmp_path) == []


def test_a_folder_without_notes_is_not_made(tmp_path: Path) -> None:
    assert rewritten(tmp_path) is None
    assert not (tmp_path / FOLDER).exists()


times = st.integers(0, 2_000)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), times, times), min_size=1, max_size=8),
    st.dictionaries(st.sampled_from("ab"), st.builds(Erasure, times, times)),
)
@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_files_and_the_topic_agree_on_which_rows_are_erased(
    rows: list[tuple[str, int, int]], erasures: dict[str, Erasure]
) -> None:
    table = as_table(
        [
            replace(SAMPLE, profile_id=name, last_event_at_ms=event, published_at_ms=published)
            for name, event, published in rows
        ]
    )
    assert are_erased(table, erasures).tolist() == [
        name in erasures and erasures[name].covers(event, published)
        for name, event, published in rows
    ]


def test_a_file_of_an_older_release_keeps_its_columns(tmp_path: Path) -> None:
    land(tmp_path, records([BEFORE, OTHER]), [tombstone(2)])
    (path,) = (tmp_path / name for name in files(tmp_path))
    older = pq.read_table(path, partitioning=None).drop_columns(["title_log_norm"])
    pq.write_table(older, path)
    rewritten(tmp_path)
    assert pq.read_table(path, partitioning=None).equals(older.slice(1))
