"""Builds a source's histories from its events, day by day, and keeps them as columns.

The interactions of each day are joined by themselves and kept, so that a day more, or a day that
changed, is all there is to read again. Then the days are joined with each other, some thousand
profiles at a time, and written behind one another: memory is bounded, whatever there is to build.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from fm_intent.data import joining
from fm_intent.data.columns import GrowingColumn, GrowingIds, open_column
from fm_intent.data.contract import CATALOGUE_FILE
from fm_intent.data.engines import Engine, EngineName, engine
from fm_intent.data.event_files import DIGESTS, day_digests, event_days
from fm_intent.data.histories import COLUMNS, OFFSET, histories_folder
from stream.domain.catalogue import read_catalogue
from stream.domain.history import EDITION
from stream.exceptions import DataUnusableError

_DAYS: Final = "days"
_AT_ONCE: Final = 1_000_000
"""Interactions of days that are joined with each other at once, more where one profile has more."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made.

    Attributes:
        folder: of the columns.
        days: joined now.
        kept_days: that were joined before.
        events: of the days that were joined now, those without state included.
        interactions: of all profiles.
        profiles: that have any.
    """

    folder: Path
    days: int
    kept_days: int
    events: int
    interactions: int
    profiles: int


def build(data_dir: Path, engine_name: EngineName = "duckdb") -> Built:
    """Build the histories of the events in `data_dir`; days that were joined before aren't again.

    Killed, it leaves what was there, and called again it goes on with the day that it was at.

    Args:
        data_dir: folder with the source's catalogue and events.
        engine_name: what runs the queries; all make the same bytes.

    Raises:
        DataUnusableError: when files are missing, or events lack what an interaction needs.
    """
    folder = histories_folder(data_dir)
    kept = folder.parent / _DAYS
    files = event_days(data_dir)
    names = {
        day: f"{EDITION}-{digest[:16]}" for day, digest in day_digests(data_dir, files).items()
    }
    missing = [day for day, name in names.items() if not (kept / name).exists()]
    if folder.exists():
        missing = []
    else:
        _build(files, {day: kept / name for day, name in names.items()}, folder, engine_name)
    _remove_others(kept, names.values())
    _remove_others(folder.parent, (folder.name, _DAYS, DIGESTS))
    for old in data_dir.glob("histories-*.npz"):  # of before histories were columns
        old.unlink(missing_ok=True)
    return Built(
        folder,
        days=len(missing),
        kept_days=len(names) - len(missing),
        events=sum(pq.read_metadata(one).num_rows for day in missing for one in files[day]),
        interactions=len(open_column(folder / "action.npy")),
        profiles=len(open_column(folder / f"{OFFSET}.npy")) - 1,
    )


def _build(
    events: Mapping[str, Sequence[Path]],
    kept: Mapping[str, Path],
    folder: Path,
    engine_name: EngineName,
) -> None:
    folder.parent.mkdir(exist_ok=True)
    missing = [day for day, where in kept.items() if not where.exists()]
    with (
        TemporaryDirectory(prefix=".spill-", dir=folder.parent) as spill,
        engine(engine_name, Path(spill)) as runs,
    ):
        for day in tqdm(missing, "days", unit="day", disable=None):
            with _whole(kept[day]) as part:
                _join_day(runs, events[day], part)
        days = [path for where in kept.values() for path in sorted(where.glob("*.parquet"))]
        with _whole(folder) as part:
            part.mkdir()
            _write(runs, days, folder.parent.parent / CATALOGUE_FILE, part)


def _join_day(runs: Engine, files: Sequence[Path], folder: Path) -> None:
    events = runs.table(files)
    (faults,) = (row for batch in runs.batches(joining.faults(events)) for row in batch.to_pylist())
    if any(faults.values()):
        told = ", ".join(f"{count:,} {fault}" for fault, count in faults.items() if count)
        raise DataUnusableError(
            f"some events of {files[0]} and its like can't be joined: {told}; "
            "`intentstream data check` shows them"
        )
    runs.write(joining.joined(joining.interactions(events)).order_by("profile_id"), folder)


def _write(runs: Engine, days: Sequence[Path], catalogue: Path, folder: Path) -> None:
    durations = read_catalogue(catalogue).durations.ms
    usual = runs.values(
        {
            "title": pa.array(list(durations), pa.int64()),
            "usual_ms": pa.array(list(durations.values()), pa.int64()),
        }
    )
    rows = runs.table(days)
    written = {
        name: GrowingColumn(folder / f"{name}.npy", dtype) for name, dtype in COLUMNS.items()
    }
    ids, offset = GrowingIds(folder), GrowingColumn(folder / f"{OFFSET}.npy", np.int64)
    for first, after in tqdm(_ranges(runs, rows), "profiles", unit="part", disable=None):
        some = rows
        if first is not None:
            some = some.filter(some.profile_id >= first)
        if after is not None:
            some = some.filter(some.profile_id < after)
        newest = None
        for batch in runs.batches(joining.histories(joining.joined(some), usual)):
            runs_of = pc.run_end_encode(batch["profile_id"])
            begins = written["action"].rows + np.append(0, runs_of.run_ends.to_numpy()[:-1])
            named = runs_of.values
            if len(named) and named[0].as_py() == newest:
                begins, named = begins[1:], named[1:]
            if len(named):
                newest = named[-1].as_py()
            offset.append(begins)
            ids.append(named)
            for name, column in written.items():
                column.append(batch[name].to_numpy())
    offset.append(np.array([written["action"].rows]))
    for column in (*written.values(), offset):
        column.close()
    ids.close()


def _ranges(runs: Engine, rows: ibis.Table) -> list[tuple[str | None, str | None]]:
    """Ranges of profile ids, one after the other, that have about as many rows each.

    A range begins with its first id and ends before its second; None is where all begin or end.
    """
    cuts: list[str] = []
    before = 0
    counted = rows.group_by("profile_id").aggregate(rows=rows.count()).order_by("profile_id")
    for batch in runs.batches(counted):
        reached = before + np.cumsum(batch["rows"].to_numpy())
        number = np.append(before, reached) // _AT_ONCE
        begins = np.flatnonzero(number[1:] > number[:-1])
        cuts += batch["profile_id"].take(pa.array(begins)).to_pylist()
        before = int(reached[-1]) if len(reached) else before
    return list(pairwise([None, *cuts, None]))


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A name for a folder that gets its own once it is all there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # another run was at the same, and through before
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_others(folder: Path, kept: Collection[str]) -> None:
    """Remove what isn't kept, but for what runs are making, whose names begin with a dot."""
    for other in folder.iterdir():
        if other.name not in kept and not other.name.startswith("."):
            shutil.rmtree(other)
