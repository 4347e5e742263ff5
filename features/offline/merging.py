"""Merges the small files of a day that is over into one of each partition of the topic.

    FOLDER/date=2026-01-31/TOPIC@PARTITION-FIRST-LAST-DIGEST.parquet    the merged file
    FOLDER/.merges/TOPIC@PARTITION-FIRST-LAST-DIGEST.json               what it replaces

FIRST and LAST are the first and the last offset of its parts, DIGEST is of their names. The folders
of the hours stay, because the sink counts by them; what lands later lies there again and is merged
with the merged file once more.

A note of the parts is written first, then the merged file, then, after a grace, the parts go, and
the note last. Who lists by `standing` takes the merged file as soon as it is there, and not its
parts; who has listed before has the grace to read them, and after that begins anew. So at whichever
point this is killed, no row is missing and none is there twice: a note without its merged file says
nothing, and the next merging ends what was begun. A reader that doesn't know of the notes sees a
day's rows twice within the grace.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from pyarrow.fs import FileSelector, FileType, LocalFileSystem

from features.offline.landing import CHANGING, ROW_GROUP, lock, sync_folder, write_all, write_note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from threading import Event

    from pyarrow.fs import FileInfo, FileSystem

_log = logging.getLogger(__name__)

FOLDER: Final = ".merges"

GRACE_S: Final = 60.0
"""Longer than anybody takes to list a folder and to open what is in it."""

_NAME: Final = re.compile(r"(?P<owner>.+@\d+)-(?P<first>\d+)-(?P<last>\d+)-[0-9a-f]{16}\.parquet")


class Merged(NamedTuple):
    """What became of one day."""

    day: str
    files: int
    """Merged files that were written."""
    parts: int
    """Files that they replaced."""
    left: int
    """Files that stay as they are, because one of them can't be read."""


def standing(folder: str | Path, filesystem: FileSystem | None = None) -> list[FileInfo]:
    """The files whose rows count, in the order of their paths: none that a merged file replaces.

    Args:
        folder: The batch source's folder, or its one file.
        filesystem: Where it is; by default on this machine.

    Raises:
        OSError: when a note can't be read.
    """
    filesystem = filesystem or LocalFileSystem()
    root = filesystem.get_file_info(str(folder))
    if root.type == FileType.File:
        return [root]
    found = {
        one.path: one
        for one in filesystem.get_file_info(
            FileSelector(str(folder), recursive=True, allow_not_found=True)
        )
        if one.type == FileType.File and not _is_hidden(one.path.removeprefix(str(folder)))
    }
    # After the files are listed: a note is there before its merged file, and for longer than parts.
    for note in _notes(str(folder), filesystem):
        if f"{folder}/{note.merged}" in found:
            for part in note.parts:
                found.pop(f"{folder}/{part}", None)
    return [found[path] for path in sorted(found)]


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))


class _Note(NamedTuple):
    path: str
    merged: str
    """The merged file, relative to the batch source's folder."""
    parts: Sequence[str]
    """What it replaces."""


def _notes(folder: str, filesystem: FileSystem) -> Iterator[_Note]:
    for file in filesystem.get_file_info(FileSelector(f"{folder}/{FOLDER}", allow_not_found=True)):
        if not file.base_name.endswith(".json") or file.base_name.startswith("."):
            continue
        try:
            with filesystem.open_input_stream(file.path) as stream:
                held = orjson.loads(stream.read())
        except FileNotFoundError:
            continue  # It went since the listing, and its parts before it.
        except ValueError as error:
            raise OSError(
                f"{file.path} is no note of a merging ({error}). Put a whole copy in its place; or "
                "move the merged file of the same name away, while its parts are still there."
            ) from error
        yield _Note(file.path, held["merged"], held["parts"])


def merge(folder: Path, quiet_s: float, ends: Event, grace_s: float = GRACE_S) -> Merged | None:
    """Merge the files of the oldest day that is over, and end what a killed merging had begun.

    One process at a time does so, and none takes erased rows out of files meanwhile. The sink may
    land rows, of that day too.

    Args:
        folder: The batch source's folder.
        quiet_s: A day's files are left alone for so long after the last one was written.
        ends: Set it to have this end soon; what is left the next call does.
        grace_s: How long parts stay that a merged file replaces.

    Returns:
        None when there is nothing to merge, or another process changes files.

    Raises:
        OSError: when files can't be listed, written or removed.
    """
    if not folder.exists():
        return None
    with lock(folder, CHANGING) as is_ours:
        if not is_ours or not _end(folder, ends, grace_s):
            return None
        for unfinished in (*folder.glob("date=*/.*.merging"), *folder.glob(f"{FOLDER}/.*.part")):
            unfinished.unlink()
        today = f"date={datetime.now(UTC):%Y-%m-%d}"
        for day in sorted(folder.glob("date=*")):
            if day.name >= today:
                break
            told = _merge_day(folder, day, quiet_s, ends)
            if told.files:
                _end(folder, ends, grace_s)
                return told
    return None


def _merge_day(folder: Path, day: Path, quiet_s: float, ends: Event) -> Merged:
    by_owner: dict[str, list[Path]] = defaultdict(list)
    for path in chain(sorted(day.glob("*.parquet")), sorted(day.glob("hour=*/*.parquet"))):
        if name := _NAME.fullmatch(path.name):
            by_owner[name["owner"]].append(path)
    files = parts = left = 0
    for owner, paths in sorted(by_owner.items()):
        newest = max(path.stat().st_mtime for path in paths)
        if len(paths) < 2 or newest > time() - quiet_s:
            continue
        if ends.is_set():
            break
        try:
            _merge_files(folder, day, owner, paths)
        except (OSError, pa.ArrowException) as error:
            _log.error("The files of %s in %s stay as they are: %s", owner, day, error)
            left += len(paths)
        else:
            files, parts = files + 1, parts + len(paths)
    return Merged(day.name, files, parts, left)


def _merge_files(folder: Path, day: Path, owner: str, paths: Sequence[Path]) -> None:
    """Write the note, then the merged file."""
    schema = pa.unify_schemas([pq.read_schema(path) for path in paths])
    told = [found for path in paths if (found := _NAME.fullmatch(path.name))]
    first = min(int(one["first"]) for one in told)
    last = max(int(one["last"]) for one in told)
    parts = [str(path.relative_to(folder)) for path in paths]
    name = f"{owner}-{first:012d}-{last:012d}-{xxhash.xxh3_64_hexdigest(' '.join(parts).encode())}"
    held = {"merged": f"{day.name}/{name}.parquet", "parts": parts}
    write_note(folder / FOLDER, f"{name}.json", orjson.dumps(held))
    write_all(_in_groups(_rows(paths, schema)), schema, day, f"{name}.parquet", "merging")


def _rows(paths: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The files' rows in portions, with all columns; one that a file lacks is null.

    A merged file that is merged again is larger than one likes to hold.
    """
    import pyarrow.dataset as ds  # here, because it brings pandas

    found = ds.dataset([str(path) for path in paths], schema, format="parquet")
    for batch in found.to_batches(batch_size=ROW_GROUP, batch_readahead=1, fragment_readahead=1):
        yield pa.Table.from_batches([batch], schema)


def _in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of the size of a row group or a little more."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= ROW_GROUP:
            yield pa.concat_tables(held)
            held.clear()
    if held:
        yield pa.concat_tables(held)


def _end(folder: Path, ends: Event, grace_s: float) -> bool:
    """Remove what merged files have replaced, after the grace; False when told to end before."""
    found = list(_notes(str(folder), LocalFileSystem()))
    done = [note for note in found if (folder / note.merged).exists()]
    if done and ends.wait(grace_s):
        return False
    for note in done:
        for part in note.parts:
            (folder / part).unlink(missing_ok=True)
        # Parts that came back after a failure of power would count again without their note.
        for changed in {(folder / part).parent for part in note.parts}:
            sync_folder(changed)
    for note in found:
        Path(note.path).unlink()
    if found:
        sync_folder(folder / FOLDER)
    return True
