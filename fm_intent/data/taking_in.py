"""Takes a service's files in, as its `source.yaml` describes them: its prepared folder.

The folder holds the catalogue, the events by day (`events/day=YYYY-MM-DD`), `labels.json`, and the
description itself. A file of events is taken in once; one that changed is taken in anew, and what
came of one that is gone goes too. Records that are no events, or that a worker would take for dead
letters, are left out; which, and why, is in `rejected.jsonl`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import TYPE_CHECKING, Any, Final

import fsspec
import pyarrow.parquet as pq
import xxhash
from tqdm import tqdm

from fm_intent.data.contract import CATALOGUE_FILE, EVENTS_SCHEMA
from fm_intent.data.event_files import EVENTS_FOLDER, event_days
from fm_intent.data.faults import BY_NAME as FAULTS
from fm_intent.data.files import (
    Files,
    Unusable,
    connect,
    find_files,
    insist,
    quoted,
    read_apart,
    text,
    unusable,
)
from fm_intent.data.label_rules import version_labels
from fm_intent.data.reading import (
    OURS,
    Refusal,
    Sought,
    events_sql,
    line_of,
    read_catalogue_files,
    reading,
    record_fields,
    rejected_lines,
)
from fm_intent.data.record_faults import REFUSED, refusal
from fm_intent.data.records import lines_without
from stream.domain.version_labels import LABELS_FILE
from stream.exceptions import DataUnusableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fm_intent.data.description import SourceDescription
    from stream.domain.version_labels import VersionLabels

DESCRIPTION_FILE: Final = "source.yaml"
REJECTED_FILE: Final = "rejected.jsonl"

_TAKEN: Final = "taken"
_EDITION: Final = 3
"""Raised when other events come of the same files, so that they are taken in anew."""

_AT_MOST: Final = 1_000
"""Rejected records of a file that are kept one by one; all are counted."""


@dataclass(slots=True)
class TakenIn:
    """What was taken in.

    Attributes:
        files: of events, now.
        kept_files: that were taken in before.
        titles: of the catalogue.
        rejected: records of all files, and whole files, that were left out, by reason.
        records: of all files.
        labels: of the source.
    """

    files: int
    kept_files: int
    titles: int
    labels: VersionLabels
    records: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def take_in(description: SourceDescription, file: Path, folder: Path) -> TakenIn:
    """Bring what is prepared of a source up to date with its files.

    Args:
        description: of the source.
        file: that it was read from.
        folder: of what is prepared; where the description lies in it, its events are there already.

    Raises:
        DataUnusableError: when files are missing or can't be read.
        UnknownAdapterError: when there is no such adapter.
        AdapterOptionsError: when its options are wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    in_place = file.parent.resolve() == folder.resolve()
    if not in_place:
        catalogue = read_catalogue_files(description)
        if not len(catalogue):
            raise DataUnusableError(f"the catalogue that {file} names has no title")
        part = folder / f".{CATALOGUE_FILE}.{os.getpid()}"
        pq.write_table(catalogue, part, compression="zstd")
        part.replace(folder / CATALOGUE_FILE)
        shutil.copyfile(file, folder / DESCRIPTION_FILE)
    catalogue = pq.read_table(folder / CATALOGUE_FILE)
    taken = [] if in_place else _take_events(description, folder)
    devices = _devices(folder)
    labels = version_labels(description.labels, catalogue, devices)
    (folder / LABELS_FILE).write_text(labels.model_dump_json(indent=1))
    rejected: Counter[str] = Counter()
    for one in taken:
        rejected.update(one["rejected"])
    now, before = (sum(one["now"] is is_new for one in taken) for is_new in (True, False))
    records = sum(one["records"] for one in taken)
    _insist(description, rejected, records, folder)
    return TakenIn(now, before, len(catalogue), labels, records, rejected)


def _insist(
    description: SourceDescription, rejected: Mapping[str, int], records: int, folder: Path
) -> None:
    """Raise where more records are left out than the gates of the check let pass."""
    complaints = []
    for reason, count in rejected.items():
        # Reasons that are no kind of fault are an adapter's own.
        fault = FAULTS.get(reason, FAULTS["record_refused"])
        fail = description.gates.check.get(fault.name, fault).fail
        if fail is not None and count > fail * records:
            complaints.append(f"{count:,} {reason}")
    if complaints:
        raise DataUnusableError(
            f"too many of {records:,} records can't be taken in: {', '.join(complaints)}; "
            f"{folder / REJECTED_FILE} has some of them, `intentstream data check` shows all that "
            "is wrong, and `gates.check` in source.yaml says how many may be"
        )


def _take_events(description: SourceDescription, folder: Path) -> list[dict[str, Any]]:
    """What is known of each file of events, once all are taken in."""
    files = find_files(description.events.path, description.events.format)
    notes = folder / _TAKEN
    notes.mkdir(exist_ok=True)
    names = {_digest(name, description): name for name in files.names}
    for old in notes.glob("*.json"):
        if old.stem not in names:
            for part in (folder / EVENTS_FOLDER).glob(f"day=*/part-{old.stem}-*.parquet"):
                part.unlink()
            old.unlink()
    found: list[dict[str, Any]] = []
    lost: list[Unusable] = []
    new = {digest for digest in names if not (notes / f"{digest}.json").exists()}
    if new and description.events.adapter == OURS:
        sought = Sought.of_events(description.events)
        with connect(files=(files,)) as connection:
            list(read_apart(files, partial(sought.look, connection)))
        insist(sought.lacking())
    with tqdm(total=len(new), desc="files", unit="file", disable=None) as bar:
        for digest, name in names.items():
            note = notes / f"{digest}.json"
            if digest in new:
                alone = Files(files.format, (name,), files.filesystems)
                bar.update()
                try:
                    taken = _take_file(description, alone, digest, folder)
                except DataUnusableError as error:
                    lost.append(unusable(name, error))
                    continue
                note.write_text(json.dumps(taken))
            found.append(json.loads(note.read_text()) | {"now": digest in new})
    unread = [one for one in lost if one.fault == "file_unreadable"]
    fault = FAULTS["file_unreadable"]
    fail = description.gates.check.get(fault.name, fault).fail
    if fail is not None and len(unread) > fail * len(names):
        insist(unread)
    for one in lost:
        told = {"file": one.example["filename"], "reason": one.fault, "detail": one.told}
        known = {"now": None, "records": 0, "rejected": {one.fault: 1}, "refused": [told]}
        found.append(known)
    lines = [line for one in found for line in one["refused"]]
    (folder / REJECTED_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return found


def _take_file(
    description: SourceDescription, files: Files, digest: str, folder: Path
) -> dict[str, Any]:
    (name,) = files.names
    refused: list[dict[str, str]] = []
    rejected: Counter[str] = Counter()

    def refuse(one: Refusal) -> None:
        reason = "line_unreadable" if one.broken else one.reason
        rejected[reason] += 1
        if len(refused) < _AT_MOST:
            detail = _line(line_of(name, one.broken)) if one.broken else one.detail
            detail = f"record {one.record}: {detail}"
            refused.append({"file": name, "reason": reason, "detail": detail})

    with TemporaryDirectory(prefix=".taking-", dir=folder) as working, reading(files) as connection:
        columns = ", ".join(map(quoted, EVENTS_SCHEMA.names))
        every = events_sql(connection, description, files, refuse)
        day = "strftime(make_timestamp(occurred_at_ms * 1000), '%Y-%m-%d')"
        # What is left out is a day of its own, so that the file is read but once.
        connection.execute(f"""
            COPY (
                SELECT {columns}, coalesce({refusal(round(time() * 1000))}, {day}) AS day
                FROM ({every}) ORDER BY day, occurred_at_ms, event_id
            ) TO {text(working)} (
                FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day), OVERWRITE_OR_IGNORE,
                FILENAME_PATTERN {text(f"part-{digest}-{{i}}")}
            )""")
        # A part that an interrupted run has left is of the same name or goes with it.
        for old in (folder / EVENTS_FOLDER).glob(f"day=*/part-{digest}-*.parquet"):
            old.unlink()
        records = rejected.total()
        for part in sorted(Path(working).glob("day=*/*.parquet")):
            rows = pq.read_metadata(part).num_rows
            records += rows
            if (reason := part.parent.name.removeprefix("day=")) in REFUSED:
                rejected[reason] += rows
                most = _AT_MOST - len(refused)
                if reason == "line_unreadable" and files.format == "jsonl":
                    broken = lines_without(name, record_fields(description.events))
                    told = (_line(line_of(name, one)) for one in islice(broken, most))
                    refused += ({"file": name, "reason": reason, "detail": one} for one in told)
                else:
                    refused += _left_out(name, reason, part, most)
                continue
            target = folder / EVENTS_FOLDER / part.parent.name / part.name
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
        count, lines = rejected_lines(connection)
        records += count
        if count:
            rejected["line_unreadable"] += count
        for line in lines[: _AT_MOST - len(refused)]:
            refused.append({"file": name, "reason": "line_unreadable", "detail": _line(line)})
    return {"file": name, "records": records, "rejected": rejected, "refused": refused}


def _line(line: Mapping[str, Any]) -> str:
    return f"line {line['line']}: {line['text']}"


def _left_out(name: str, reason: str, part: Path, most: int) -> list[dict[str, str]]:
    rows = next(pq.ParquetFile(part).iter_batches(_AT_MOST), None)
    return [
        {
            "file": name,
            "reason": reason,
            "detail": json.dumps({key: value for key, value in row.items() if value is not None}),
        }
        for row in (rows.slice(0, most).to_pylist() if rows else ())
    ]


def _devices(folder: Path) -> dict[str, int]:
    paths = [str(path) for files in event_days(folder).values() for path in files]
    counted = """
        SELECT device, count(*) FROM read_parquet($paths) WHERE device IS NOT NULL GROUP BY device
    """
    with connect() as connection:
        return dict(connection.execute(counted, {"paths": paths}).fetchall())


def _digest(name: str, description: SourceDescription) -> str:
    """Names a file as it is now, and what of the description decides what comes of it."""
    filesystem, path = fsspec.core.url_to_fs(name)
    told = filesystem.info(path)
    state = [told.get(key) for key in ("size", "mtime", "etag", "ETag", "LastModified", "updated")]
    how = description.model_dump_json(include={"events": True, "exclude": True})
    kinds = description.labels.kinds.model_dump_json() if description.exclude.kinds else ""
    return xxhash.xxh3_64_hexdigest(repr((_EDITION, name, state, how, kinds)).encode())
