"""Takes the rows of erased profiles out of landed files.

A file is written anew without them, under a name that readers and the sink pass over, synced and
renamed over the old one: whoever looks finds the one or the other. It keeps its name and its place,
so that a row that Kafka delivers again finds its twins; one that has no rows left stays, empty,
because a reader may have listed it already. Killed at any point this leaves whole files and notes
that are still there, and begins anew.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from features.offline.erasures import COLUMNS, FOLDER, are_erased, joined, notes
from features.offline.landing import CHANGING, ROW_GROUP, lock, sync_folder, write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from stream.domain.feature_row import Erasure

_log = logging.getLogger(__name__)


class Rewritten(NamedTuple):
    """What became of the landed files."""

    rows: int
    """Rows that were taken out."""
    files: int
    """Files that were written anew."""
    unreadable: int
    """Files that could not be read or written; the notes stay then."""


def rewrite(folder: Path, passed_ms: int, gives_up: Callable[[], bool]) -> Rewritten | None:
    """Take all rows from before an erasure out of all landed files; drop the notes that are done.

    One process at a time does so; no other changes a file that has landed.

    Args:
        folder: The batch source's folder.
        passed_ms: Everything that had been published by this time has landed, whoever landed it;
            Unix milliseconds.
        gives_up: Asked before each file; True ends it, and drops no note.

    Returns:
        None when there is nothing to do, or another process is doing it.

    Raises:
        OSError: when a note can't be read or dropped.
    """
    if not notes(folder):
        return None
    with lock(folder, CHANGING) as is_ours:
        if not is_ours:
            return None
        found = notes(folder)
        erasures = joined(found)
        for unfinished in folder.glob("date=*/**/.*.anew"):
            unfinished.unlink()
        rows = files = unreadable = 0
        for path in sorted(folder.glob("date=*/**/*.parquet")):
            if gives_up():
                return Rewritten(rows, files, unreadable)
            try:
                gone = _rewrite_one(path, erasures)
            except (OSError, pa.ArrowException) as error:
                _log.error("%s may hold rows of erased profiles, which stay: %s", path, error)
                unreadable += 1
                continue
            rows, files = rows + gone, files + (gone > 0)
        if not unreadable:
            for note in found:
                if note.noted_at_ms < passed_ms:
                    (folder / FOLDER / note.name).unlink()
            sync_folder(folder / FOLDER)
        return Rewritten(rows, files, unreadable)


def _rewrite_one(path: Path, erasures: Mapping[str, Erasure]) -> int:
    """Take the rows out of one file; how many there were."""
    told = pq.read_table(path, columns=list(COLUMNS), partitioning=None)
    erased = are_erased(told, erasures)
    if erased.any():
        with pq.ParquetFile(path) as file:
            write_all(_kept(file, erasures), file.schema_arrow, path.parent, path.name, "anew")
    return int(erased.sum())


def _kept(file: pq.ParquetFile, erasures: Mapping[str, Erasure]) -> Iterator[pa.Table]:
    """The rows that stay, in portions: a merged file is larger than one likes to hold."""
    for batch in file.iter_batches(ROW_GROUP):
        table = pa.Table.from_batches([batch])
        yield table.filter(pa.array(~are_erased(table, erasures)))
