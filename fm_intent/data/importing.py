"""Files of another's events, as canonical ones: Parquet by day, through an adapter.

A folder that was imported into holds

- `events/day=YYYY-MM-DD/part-<digest>.parquet`: `EVENTS_SCHEMA`, in order of time and id;
- `rejected.jsonl`: the records that were refused, each with its reason;
- `imports/`: what came of each file, by the digest of its bytes and of how it was read.

A file is imported once: its parts are named by its digest, and appear when it was read to its end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fsspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from fm_intent.data.contract import EVENTS_SCHEMA
from fm_intent.data.files import connect, find_files, insist, text, unusable
from fm_intent.data.records import records
from stream.adapters.registry import reader
from stream.exceptions import BadRecordError, DataUnusableError, NoRecordError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fm_intent.data.description import Format
    from stream.adapters.adapter import Reader

EDITION: Final = 3
"""Raised when other events come of the same records, so that files are imported anew."""

REJECTED_FILE: Final = "rejected.jsonl"

_IMPORTS: Final = "imports"
_BATCH: Final = 32_768
_MEMORY_MIB: Final = 256
_DAY_MS: Final = 86_400_000
_YEAR_10000_MS: Final = 253_402_300_800_000
_CHUNK: Final = 1 << 20


Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""As `stream.steps.progress`."""


@contextmanager
def _silent(_name: str, _total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


@dataclass(slots=True)
class Tally:
    """What became of the records of a file."""

    records: int = 0
    events: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)
    """Records that are no event of ours, by why."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Records that are broken, by reason."""


@dataclass(slots=True)
class Imported(Tally):
    """What became of a file."""

    file: str = ""
    digest: str = ""
    days: int = 0
    was_there: bool = False
    """Whether it had been imported before, so that nothing was done."""


def adapted(
    name: str,
    format: str,  # noqa: A002
    read: Reader,
    tally: Tally,
    reject: Callable[[int, object, BadRecordError], None] = lambda *_: None,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[pa.RecordBatch]:
    """The events of a file, in `EVENTS_SCHEMA` and in the file's order.

    Args:
        name: Of the file, local or a URL that fsspec opens.
        format: `parquet`, `jsonl` or `csv`.
        read: The adapter, under its options.
        tally: Is told what became of the records.
        reject: Is told the number, from 1, of a record that is refused, the record and why.
        advance: Is told now and then how many bytes have been read.

    Raises:
        DataUnusableError: when the file can't be opened, or isn't of the format.
    """
    events: list[dict[str, Any]] = []
    for record in records(name, format, read.files, advance):
        tally.records += 1
        try:
            if isinstance(record, NoRecordError):
                raise record
            found = read(record)
            _check_calendar(found.events)
        except BadRecordError as error:
            _count(tally.rejected, error.reason.value)
            reject(tally.records, record, error)
            continue
        if found.passed_over:
            _count(tally.passed_over, found.passed_over)
        tally.events += len(found.events)
        events += found.events
        if len(events) >= _BATCH:
            yield pa.RecordBatch.from_pylist(events, schema=EVENTS_SCHEMA)
            events = []
    if events:
        yield pa.RecordBatch.from_pylist(events, schema=EVENTS_SCHEMA)


def import_files(
    paths: Sequence[str],
    into: Path,
    *,
    adapter: str,
    options: Mapping[str, Any] | None = None,
    format: Format = "auto",  # noqa: A002
    progress: Progress = _silent,
) -> Iterator[Imported]:
    """Import files into a folder, one after another; yield what became of each.

    Args:
        paths: Files, folders, globs or URLs that fsspec opens.
        into: The folder; made if need be.
        adapter: Name of the adapter.
        options: Its options.
        format: `auto` tells it by the names.
        progress: Entered with the name and the bytes of a file; what it gives is told how many of
            them have been read.

    Raises:
        UnknownAdapterError: when there is no such adapter.
        AdapterOptionsError: when an option is unknown, missing or wrong.
        DataUnusableError: when a path names nothing; and, once all others are imported, with every
            file that can't be read.
    """
    read = reader(adapter, options)
    found = find_files(paths, format)
    how = orjson.dumps([EDITION, adapter, dict(options or {}), found.format], default=str)
    (into / _IMPORTS).mkdir(parents=True, exist_ok=True)
    unreadable = []
    for name in found.names:
        try:
            yield _import(name, found.format, into, read, _digest(name, how), progress)
        except (DataUnusableError, OSError) as error:
            unreadable.append(unusable(name, error))
            if unreadable[-1].fault == "file_empty":
                yield Imported(file=name)
    _gather_rejected(into)
    insist(unreadable)


def _import(
    name: str,
    format: str,  # noqa: A002
    into: Path,
    read: Reader,
    digest: str,
    progress: Progress,
) -> Imported:
    note = into / _IMPORTS / f"{digest}.json"
    if note.exists():
        return Imported(**{**orjson.loads(note.read_bytes()), "was_there": True})
    working = into / f".importing-{digest}"
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir()
    told = Imported(file=name, digest=digest)
    rejected = working / REJECTED_FILE
    spool = working / "unsorted.parquet"
    with (
        rejected.open("wb") as refuse,
        pq.ParquetWriter(spool, EVENTS_SCHEMA, compression="zstd") as unsorted,
        progress(Path(name).name, _size(name)) as advance,
    ):

        def reject(number: int, record: object, error: BadRecordError) -> None:
            value = record.text if isinstance(record, NoRecordError) else record
            line = {
                "file": name,
                "record": number,
                "reason": error.reason,
                "detail": error.detail,
                "value": value,
            }
            refuse.write(_line(line))

        for batch in adapted(name, format, read, told, reject, advance):
            unsorted.write_batch(batch)
        advance(_size(name))
    parts = list(_sorted_by_day(spool, working))
    told.days = len(parts)
    for day, part in parts:
        folder = into / "events" / f"day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        part.replace(folder / f"part-{digest}.parquet")
    rejected.replace(into / _IMPORTS / f"{digest}.{REJECTED_FILE}")
    _write(note, orjson.dumps(asdict(told), option=orjson.OPT_INDENT_2))
    shutil.rmtree(working)
    return told


def _sorted_by_day(spool: Path, working: Path) -> Iterator[tuple[str, Path]]:
    """The days of the events and a file of each, in order; DuckDB sorts, on disk if need be."""
    with connect(_MEMORY_MIB) as connection:
        connection.execute(f"SET temp_directory = {text(str(working / 'sorting'))}")
        connection.execute("SET threads = 2")
        ordered = connection.sql(
            f"SELECT * FROM read_parquet({text(str(spool))}) ORDER BY occurred_at_ms, event_id"
        )
        day, part, writer = -1, Path(), None
        for batch in ordered.to_arrow_reader(_BATCH):
            days = batch.column("occurred_at_ms").to_numpy() // _DAY_MS
            cuts = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
            for start, end in zip(cuts, [*cuts[1:], len(days)], strict=True):
                if days[start] != day:
                    if writer:
                        writer.close()
                        yield _date(day), part
                    day = int(days[start])
                    part = working / f"{day}.parquet"
                    writer = pq.ParquetWriter(part, EVENTS_SCHEMA, compression="zstd")
                assert writer is not None
                writer.write_batch(batch.slice(start, end - start).cast(EVENTS_SCHEMA))
        if writer:
            writer.close()
            yield _date(day), part


def _gather_rejected(into: Path) -> None:
    """`rejected.jsonl` of what every import refused."""
    target = into / REJECTED_FILE
    gathered = target.with_suffix(".new")
    with gathered.open("wb") as out:
        for each in sorted((into / _IMPORTS).glob(f"*.{REJECTED_FILE}")):
            with each.open("rb") as lines:
                shutil.copyfileobj(lines, out)
    gathered.replace(target)


def _check_calendar(events: Sequence[Mapping[str, Any]]) -> None:
    for event in events:
        if event["occurred_at_ms"] >= _YEAR_10000_MS:
            raise BadRecordError(Reason.OUT_OF_RANGE, "occurred_at_ms is of no day of the calendar")


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY_MS // 1000, UTC).strftime("%Y-%m-%d")


def _digest(name: str, how: bytes) -> str:
    digest = xxhash.xxh3_128(how)
    with fsspec.open(name, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _size(name: str) -> int:
    filesystem, inner = fsspec.core.url_to_fs(name)
    return int(filesystem.size(inner) or 0)


def _count(counts: dict[str, int], why: str) -> None:
    counts[why] = counts.get(why, 0) + 1


def _line(value: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # an integer of more than 64 bits, text that isn't UTF-8
        shown = {**value, "value": repr(value["value"])}
        return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)


def _write(target: Path, data: bytes) -> None:
    new = target.with_suffix(".new")
    new.write_bytes(data)
    new.replace(target)
