"""Lands published rows as Parquet, each once, whatever is killed, redelivered or published again.

    FOLDER/date=2026-01-31/hour=07/TOPIC@PARTITION-FIRST-LAST-DIGEST.parquet

Date and hour are those of `published_at`, UTC; FIRST and LAST are the offsets of the file's first
and last row. A file is written under a name that readers ignore, synced and renamed, so it is
there as a whole or not at all. When a day is over, its files are merged
(`features.offline.merging`).

A row is told by profile, `sequence_no`, model version and event time, never by its offset; event
time, because an erased profile counts its `sequence_no` from the start again. Its twins are looked
for in two places. One that Kafka delivers again has the same `published_at`, so its file lies in
the hour's own folder. One that a worker published again (it died before it acknowledged, or an
event came twice) was first published at most the allowed lateness before, in hours that had any
rows at all. So the keys of those hours are what a landing reads from the files that are there, and
no other record of what was done has to survive a crash.
"""

from __future__ import annotations

import fcntl
import logging
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from time import time
from typing import IO, TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from features.offline.erasures import FOLDER, Note, encoded, joined, notes
from features.schema.fields import FieldType
from features.schema.views import intent_features, profile_intent
from stream.domain.feature_row import Erasure, IntentRow
from stream.exceptions import BadRowError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_MILLISECONDS: Final = pa.timestamp("ms", tz="UTC")
_MS_PER_HOUR: Final = 3_600_000
_DIGEST: Final = "S16"

_FLOATS: Final = pa.list_(pa.float32())

_KINDS: Final = {
    FieldType.STRING: pa.string(),
    FieldType.INT64: pa.int64(),
    FieldType.FLOAT32: pa.float32(),
    FieldType.UNIX_TIMESTAMP: pa.timestamp("us", tz="UTC"),
    FieldType.STRINGS: pa.list_(pa.string()),
    FieldType.FLOAT32S: _FLOATS,
}

SCHEMA: Final = pa.schema(
    [
        (profile_intent.join_key, pa.string()),
        *((one.name, _KINDS[one.type]) for one in profile_intent.features),
        (intent_features.timestamp_field, _MILLISECONDS),
        (intent_features.created_timestamp_column, _MILLISECONDS),
    ]
)
"""Columns of the batch source of `profile_intent`."""

_KEY_COLUMNS: Final = (
    profile_intent.join_key,
    "sequence_no",
    "model_version",
    intent_features.timestamp_field,
)
_CREATED: Final = intent_features.created_timestamp_column
_KEY_SCHEMA: Final = pa.schema([SCHEMA.field(name) for name in (*_KEY_COLUMNS, _CREATED)])

ROW_GROUP: Final = 65_536
"""Rows of a row group at most: with two embeddings of 64 floats, 90 MB in memory."""

CHANGING: Final = "erasures"
"""The lock of who changes files that have landed."""


class Published(NamedTuple):
    """One record of the topic `intent-features`."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class PartitionLanding:
    """Lands the rows of one partition of the topic.

    A partition has one owner at a time, ensured by a lock on a file: a process that was paused when
    it lost the partition still holds the lock, so no other reads the files before it has written
    its last. The lock of a process that dies is free at once.

    Args:
        folder: the batch source's folder; made when absent.
        topic: full name of the topic.
        partition: its number.
        repeat_hours: hours with rows in which a row's first publication is looked for; their keys
            are kept in memory, 16 bytes each.
    """

    def __init__(self, folder: Path, topic: str, partition: int, repeat_hours: int) -> None:
        self._folder = folder
        self._name = f"{topic}@{partition}"
        self._repeat_hours = repeat_hours
        self._keys: dict[int, NDArray[np.bytes_]] = {}
        self._lock: int | None = None

    def own(self) -> bool:
        """Take the partition's lock if need be; False while another process has it."""
        if self._lock is None:
            self._lock = _locked(self._folder, self._name)
        return self._lock is not None

    def close(self) -> None:
        """Let go of the partition."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._keys.clear()

    def land(self, records: Sequence[Published]) -> Counter[str]:
        """Write the rows that are not there yet, in one file for each hour, durably.

        When this returns, no record of `records` is needed any more. When it raises, some files may
        have been written: call it with the same records again.

        Args:
            records: what follows on what was landed before, in the order of offsets.

        Returns:
            How many records were `landed`, `repeated`, `erased`, `tombstone` and `bad`, and `files`
            written.

        Raises:
            OSError: when a file can't be written, or one that is there can't be read.
        """
        assert self._lock is not None, "`own` comes first"
        told: Counter[str] = Counter()
        self._note_erasures(records)
        erasures = joined(notes(self._folder))
        offsets, rows = [], []
        for offset, row in self._rows(records, told):
            erasure = erasures.get(row.profile_id)
            if erasure and erasure.covers(row.last_event_at_ms, row.published_at_ms):
                told["erased"] += 1
                continue
            offsets.append(offset)
            rows.append(row)
        if not rows:
            return told
        hours = np.array([row.published_at_ms // _MS_PER_HOUR for row in rows])
        keys = _digests(
            (row.profile_id, row.sequence_no, row.model_version, row.last_event_at_ms)
            for row in rows
        )
        self._remember(np.unique(hours).tolist())
        is_new = np.zeros(len(rows), bool)
        is_new[np.unique(keys, return_index=True)[1]] = True
        for known in self._keys.values():
            is_new &= ~_contains(known, keys)
        told["landed"], told["repeated"] = int(is_new.sum()), int((~is_new).sum())
        for hour in np.unique(hours[is_new]).tolist():
            chosen = np.flatnonzero(is_new & (hours == hour)).tolist()
            name = (
                f"{self._name}-{offsets[chosen[0]]:012d}-{offsets[chosen[-1]]:012d}"
                f"-{xxhash.xxh3_64_hexdigest(keys[chosen].tobytes())}.parquet"
            )
            table = landed([rows[place] for place in chosen])
            write_all([table], SCHEMA, self._hour_folder(hour), name)
            self._keys[hour] = np.union1d(self._keys[hour], keys[chosen])
            told["files"] += 1
        return told

    def _note_erasures(self, records: Sequence[Published]) -> None:
        """Keep what the tombstones tell, before anything is landed."""
        found = [
            (record.offset, str(record.key, "utf-8", "replace"), erasure)
            for record in records
            if record.value is None and record.key is not None
            if (erasure := Erasure.from_headers(record.headers)) is not None
        ]
        if not found:
            return
        first, last = found[0][0], found[-1][0]
        by_profile = joined(Note("", 0, {name: erasure}) for _, name, erasure in found)
        content = encoded(by_profile, round(time() * 1000))
        name = f"{self._name}-{first:012d}-{last:012d}.json"
        write_note(self._folder / FOLDER, name, content)

    def _rows(
        self, records: Iterable[Published], told: Counter[str]
    ) -> Iterator[tuple[int, IntentRow]]:
        for record in records:
            if record.value is None:
                told["tombstone"] += 1
                continue
            try:
                yield record.offset, IntentRow.from_json(record.value)
            except BadRowError as error:
                told["bad"] += 1
                _log.error("%s, offset %d is no row: %s", self._name, record.offset, error)

    def _remember(self, hours: Sequence[int]) -> None:
        """Know the keys in which twins of these hours' rows may be, and no others."""
        on_disk = sorted(self._hours_on_disk())
        wanted = set(hours)
        for hour in hours:
            place = bisect_left(on_disk, hour)
            # Later ones too: of two workers the one that published first may write last.
            wanted.update(on_disk[max(place - self._repeat_hours, 0) : place + self._repeat_hours])
        self._keys = {
            hour: self._keys[hour] if hour in self._keys else self._keys_on_disk(hour)
            for hour in wanted
        }

    def _hours_on_disk(self) -> Iterator[int]:
        for path in self._folder.glob("date=*/hour=*"):
            date, hour = (part.partition("=")[2] for part in path.parts[-2:])
            start = datetime.strptime(f"{date} {hour}", "%Y-%m-%d %H").replace(tzinfo=UTC)
            yield int(start.timestamp()) // 3600

    def _keys_on_disk(self, hour: int) -> NDArray[np.bytes_]:
        folder = self._hour_folder(hour)
        for unfinished in folder.glob(f".{self._name}-*.part"):
            unfinished.unlink()
        files = sorted(folder.glob(f"{self._name}-*.parquet"))
        # After the hour's own: they go only when the day's merged file has been there for long.
        files += sorted(folder.parent.glob(f"{self._name}-*.parquet"))
        return np.unique(_digests(chain.from_iterable(_keys_in(file, hour) for file in files)))

    def _hour_folder(self, hour: int) -> Path:
        start = datetime.fromtimestamp(hour * 3600, UTC)
        return self._folder / f"date={start:%Y-%m-%d}" / f"hour={start:%H}"


def _keys_in(file: Path, hour: int) -> Iterator[tuple[str, int, str, int]]:
    """What tells a file's rows of an hour, event time in Unix milliseconds.

    Raises:
        OSError: when the file can't be read; says what to do.
    """
    try:
        begin, end = _times([hour * _MS_PER_HOUR, (hour + 1) * _MS_PER_HOUR])
        created = pc.field(_CREATED)
        table = pq.read_table(
            file,
            columns=list(_KEY_COLUMNS),
            schema=_KEY_SCHEMA,
            filters=(created >= begin) & (created < end),
            partitioning=None,
        )
    except (OSError, pa.ArrowException) as error:
        raise OSError(
            f"{file} can't be read ({error}). Put a whole copy in its place; or move it away, and "
            "set the sink's group back to the first offset in its name while no sink runs: what "
            "the topic still has of its rows lands again, and nothing lands twice."
        ) from error
    *others, event_at = table.columns
    columns = (*others, event_at.cast(pa.int64()))
    return zip(*(column.to_pylist() for column in columns), strict=True)


def _digests(keys: Iterable[tuple[str, int, str, int]]) -> NDArray[np.bytes_]:
    """16 bytes for each (profile, `sequence_no`, model version, event time)."""
    return np.array(
        [xxhash.xxh3_128_digest("\0".join(map(str, key)).encode()) for key in keys], _DIGEST
    )


def _contains(known: NDArray[np.bytes_], keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Which of `keys` are in `known`, which is sorted."""
    places = np.searchsorted(known, keys)
    found = np.zeros(len(keys), bool)
    inside = places < len(known)
    found[inside] = known[places[inside]] == keys[inside]
    return found


def landed(rows: Sequence[IntentRow]) -> pa.Table:
    """Rows as the batch source has them: a feature's time has whole seconds, as online."""
    columns = [pa.array([row.profile_id for row in rows], pa.string())]
    published = [row.published() for row in rows]
    for feature in profile_intent.features:
        values = [row[feature.row_field] for row in published]
        kind = _KINDS[feature.type]
        if feature.type is FieldType.UNIX_TIMESTAMP:
            columns.append(_times([value // 1000 * 1000 for value in values]).cast(kind))
        else:
            columns.append(_floats(values) if kind == _FLOATS else pa.array(values, kind))
    columns.append(_times([row.last_event_at_ms for row in rows]))
    columns.append(_times([row.published_at_ms for row in rows]))
    return pa.table(columns, schema=SCHEMA)


def _floats(lists: Sequence[Sequence[float]]) -> pa.Array:
    # Nine tenths of a row are floats, and Arrow takes Python's one by one, 10 times as slow.
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    flat = np.fromiter(chain.from_iterable(lists), np.float32, offsets[-1])
    return pa.ListArray.from_arrays(offsets, flat)


def _times(milliseconds: Sequence[int]) -> pa.Array:
    return pa.array(milliseconds, pa.int64()).cast(_MILLISECONDS)


def write_all(
    tables: Iterable[pa.Table], schema: pa.Schema, folder: Path, name: str, unfinished: str = "part"
) -> None:
    """Write a file durably, as its rows come; it is there as a whole or not at all.

    Args:
        tables: Its rows.
        schema: Of all of them.
        folder: Where; made when absent.
        name: The file's name; one that is there is replaced.
        unfinished: How its name ends, behind a dot before and after it, until it is whole.
    """
    with (
        _whole(folder, name, unfinished) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for table in tables:
            writer.write_table(table, row_group_size=ROW_GROUP)


def write_note(folder: Path, name: str, content: bytes) -> None:
    """Write a small file durably; it is there as a whole or not at all."""
    with _whole(folder, name) as file:
        file.write(content)


@contextmanager
def _whole(folder: Path, name: str, unfinished: str = "part") -> Iterator[IO[bytes]]:
    """A file to be written, that gets its name when it is whole and on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{name}.{unfinished}"
    with part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    part.rename(folder / name)
    for changed in (folder, folder.parent, folder.parent.parent):
        sync_folder(changed)


def _locked(folder: Path, name: str) -> int | None:
    """The descriptor that holds a lock; None while another process has it."""
    locks = folder / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(locks / name, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def lock(folder: Path, name: str) -> Iterator[bool]:
    """Hold a lock of the folder; False while another process has it."""
    descriptor = _locked(folder, name)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Put a rename, or a new folder, in `folder` on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
