"""A day's small files become one: no row goes, none is read twice, and the sink knows them all."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.offline import merging
from features.offline.landing import CHANGING, SCHEMA, PartitionLanding, lock
from features.offline.merging import FOLDER, Merged, merge, standing
from features.offline.rewriting import Rewritten, rewrite
from stream.domain.feature_row import Erasure, IntentRow
from tests.unit.features.offline.test_landing import HOUR_MS, files, land, records
from tests.unit.features.offline.test_rewriting import tombstone
from tests.unit.features.samples import SAMPLE, sample

DAY = "date=2023-11-14"


def row(number: int, hour: int = 0, **changes: Any) -> IntentRow:
    """A row of the sample's day: hour 22 and, with `hour` 1, 23; of the next day with 2."""
    return sample(
        sequence_no=number, published_at_ms=SAMPLE.published_at_ms + hour * HOUR_MS, **changes
    )


def merged(folder: Path, quiet_s: float = -1) -> Merged | None:
    return merge(folder, quiet_s, Event(), grace_s=0)


def numbers(folder: Path) -> list[int]:
    """The rows that a reader finds."""
    tables = [pq.read_table(one.path, schema=SCHEMA, partitioning=None) for one in standing(folder)]
    return sorted(pa.concat_tables(tables)["sequence_no"].to_pylist())


def land_day(folder: Path) -> None:
    land(folder, records([row(1), row(2, 1)]), records([row(3, 1)], 2))


def test_a_day_s_files_become_one_with_all_of_their_rows(tmp_path: Path) -> None:
    land_day(tmp_path)
    assert merged(tmp_path) == Merged(DAY, files=1, parts=3, left=0)
    (file,) = files(tmp_path)
    assert file.parent.name == DAY
    assert numbers(tmp_path) == [1, 2, 3]
    assert not list((tmp_path / FOLDER).iterdir())
    assert merged(tmp_path) is None


def test_each_partition_and_each_day_has_a_file_of_its_own(tmp_path: Path) -> None:
    for partition in (1, 12):
        landing = PartitionLanding(tmp_path, "intent-features", partition, 1)
        assert landing.own()
        first = [row(1), row(2, 1), row(3, 2)]
        landing.land(records([replace(one, profile_id=f"p-{partition}") for one in first]))
        landing.land(records([row(4, 2, profile_id=f"p-{partition}")], 9))
        landing.close()
    assert merged(tmp_path) == Merged(DAY, files=2, parts=4, left=0)
    assert merged(tmp_path) == Merged("date=2023-11-15", files=2, parts=4, left=0)
    assert len(files(tmp_path)) == 4
    assert numbers(tmp_path) == [1, 1, 2, 2, 3, 3, 4, 4]


def test_rows_that_are_delivered_again_after_their_day_was_merged_do_not_land_again(
    tmp_path: Path,
) -> None:
    land_day(tmp_path)
    merged(tmp_path)
    again = land(tmp_path, records([row(1), row(2, 1), row(3, 1)]))
    assert (again["landed"], again["repeated"]) == (0, 3)


def test_a_row_that_is_published_again_after_the_day_was_merged_keeps_its_first_publication(
    tmp_path: Path,
) -> None:
    land_day(tmp_path)
    merged(tmp_path)
    assert land(tmp_path, records([row(1, 2)], 3))["repeated"] == 1


def test_what_lands_after_its_day_was_merged_is_merged_with_it(tmp_path: Path) -> None:
    land_day(tmp_path)
    merged(tmp_path)
    land(tmp_path, records([row(4)], 3))
    assert numbers(tmp_path) == [1, 2, 3, 4]
    assert merged(tmp_path) == Merged(DAY, files=1, parts=2, left=0)
    assert numbers(tmp_path) == [1, 2, 3, 4]
    assert len(files(tmp_path)) == 1


def test_a_day_in_which_something_lands_is_left_alone(tmp_path: Path) -> None:
    land_day(tmp_path)
    assert merged(tmp_path, quiet_s=3600) is None
    for file in files(tmp_path):
        os.utime(tmp_path / file, (0, time.time() - 3601))
    assert merged(tmp_path, quiet_s=3600) == Merged(DAY, 1, 3, 0)


def test_the_day_that_is_not_over_is_left_alone(tmp_path: Path) -> None:
    now = round(time.time() * 1000)
    for number in range(2):
        land(tmp_path, records([sample(sequence_no=number, published_at_ms=now)], number))
    assert merged(tmp_path) is None


def test_a_file_that_is_alone_stays_as_it_is(tmp_path: Path) -> None:
    land(tmp_path, records([row(1)]))
    assert merged(tmp_path) is None


def test_files_of_others_stay_as_they_are(tmp_path: Path) -> None:
    land_day(tmp_path)
    theirs = tmp_path / DAY / "hour=22" / "theirs.parquet"
    pq.write_table(pa.table({"sequence_no": [9]}), theirs)
    assert merged(tmp_path) == Merged(DAY, 1, 3, 0)
    assert theirs.exists()


def test_a_day_with_a_file_that_can_not_be_read_stays_and_the_file_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    land_day(tmp_path)
    names = files(tmp_path)
    (tmp_path / names[0]).write_bytes(b"PAR1 no more")
    assert merged(tmp_path) is None
    assert files(tmp_path) == names
    assert "stay as they are" in caplog.text


def test_a_column_that_older_files_lack_is_null_in_their_rows(tmp_path: Path) -> None:
    land_day(tmp_path)
    older = tmp_path / files(tmp_path)[0]
    pq.write_table(pq.read_table(older, partitioning=None).drop_columns("genre"), older)
    merged(tmp_path)
    table = pq.read_table(standing(tmp_path)[0].path, partitioning=None)
    found = dict(zip(table["sequence_no"].to_pylist(), table["genre"].to_pylist(), strict=True))
    assert found == {1: None, 2: SAMPLE.labels["genre"], 3: SAMPLE.labels["genre"]}


def test_erased_rows_are_taken_out_of_merged_files(tmp_path: Path) -> None:
    land(tmp_path, records([SAMPLE]), records([row(3, 1, profile_id="other")], 1))
    merged(tmp_path)
    land(tmp_path, [tombstone(2)])
    assert rewrite(tmp_path, 2**62, lambda: False) == Rewritten(rows=1, files=1, unreadable=0)
    assert numbers(tmp_path) == [3]


def test_rows_that_were_taken_out_do_not_come_back_with_a_merging(tmp_path: Path) -> None:
    land(tmp_path, records([SAMPLE]), records([row(3, 1, profile_id="other")], 1))
    land(tmp_path, [tombstone(2, erasure=Erasure(SAMPLE.published_at_ms + 1, 0))])
    rewrite(tmp_path, 2**62, lambda: False)
    assert merged(tmp_path) == Merged(DAY, 1, 2, 0)
    assert numbers(tmp_path) == [3]


def test_nothing_is_merged_while_erased_rows_are_taken_out(tmp_path: Path) -> None:
    land_day(tmp_path)
    with lock(tmp_path, CHANGING):
        assert merged(tmp_path) is None
    assert merged(tmp_path) == Merged(DAY, 1, 3, 0)


def test_who_listed_before_the_merging_can_read_until_the_grace_ends(tmp_path: Path) -> None:
    land_day(tmp_path)
    before = [one.path for one in standing(tmp_path)]

    class Grace(Event):
        """Asked to wait when the merged file is there and its parts are."""

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout == merging.GRACE_S
            assert all(Path(path).exists() for path in before)
            assert numbers(tmp_path) == [1, 2, 3]
            assert len(standing(tmp_path)) == 1
            return False

    assert merge(tmp_path, -1, Grace()) == Merged(DAY, 1, 3, 0)
    assert len(files(tmp_path)) == 1


def test_who_is_told_to_end_in_the_grace_leaves_it_to_the_next(tmp_path: Path) -> None:
    land_day(tmp_path)
    ends = Event()

    class Ending(Event):
        def wait(self, timeout: float | None = None) -> bool:
            return True

    merge(tmp_path, -1, Ending())
    assert len(files(tmp_path)) == 4
    assert numbers(tmp_path) == [1, 2, 3]
    assert merge(tmp_path, -1, ends, grace_s=0) is None
    assert len(files(tmp_path)) == 1
    assert numbers(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("step", range(22))
def test_no_row_is_lost_or_doubled_wherever_the_merging_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    land_day(tmp_path)
    left = step

    def dying(call: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return call(*arguments, **options)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying(os.fsync))
        for name in ("rename", "unlink", "open"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        try:
            merged(tmp_path)
        except KeyboardInterrupt:
            assert left == 0
        else:
            assert step > 18, "there is less to die in"
    assert numbers(tmp_path) == [1, 2, 3]
    again = land(tmp_path, records([row(1), row(2, 1), row(3, 1)]))
    assert again["repeated"] == 3
    merged(tmp_path)
    assert numbers(tmp_path) == [1, 2, 3]
    assert len(files(tmp_path)) == 1
    assert [path for path in tmp_path.rglob(".*") if path.suffix in (".merging", ".part")] == []


def test_a_note_that_is_damaged_is_named(tmp_path: Path) -> None:
    land(tmp_path, records([SAMPLE]))
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "x.json").write_bytes(b"{")
    with pytest.raises(OSError, match=r"x\.json is no note"):
        standing(tmp_path)
