"""Histories of profiles, read from a source's events: flat columns, one profile behind the other.

`[N]` is the number of all interactions and `[P]` that of profiles.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fm_intent.data.columns import StoredIds, open_column
from fm_intent.data.event_files import HISTORIES_FOLDER, data_sha256, event_days
from stream.domain.history import EDITION
from stream.domain.labels import ACTIONS, hash64

COLUMNS: Final = {
    "title_hash": np.int64,
    "action": np.int8,
    "start_ms": np.int64,
    "watched_share": np.float32,
    "device": np.uint32,
    "watched_ms": np.int32,
}
"""Of each interaction, a file each, with what it holds."""

OFFSET: Final = "offset"
"""The file that tells where each profile's interactions begin, `[P + 1]` int64."""


class ProfileIds(Protocol):
    """`[P]` ids, of which some are asked for at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: NDArray[np.int64], /) -> NDArray[np.str_]: ...

    def __array__(self) -> NDArray[Any]: ...


class HistoryColumns(NamedTuple):
    """All interactions of all profiles, `[N]`, in order of time; and where each profile's begin."""

    offset: NDArray[np.int64]
    """`[P + 1]`."""
    title_hash: NDArray[np.int64]
    action: NDArray[np.int8]
    start_ms: NDArray[np.int64]
    watched_share: NDArray[np.float32]
    device: NDArray[np.uint32]
    """`device_hash` of each one's device, 0 where there is none."""
    watched_ms: NDArray[np.int32]
    profile_id: ProfileIds
    """`[P]`."""


def read_histories(data_dir: Path) -> HistoryColumns:
    """The histories that the serving session code makes of the events in `data_dir`.

    They are built where they aren't yet, and mapped into memory: what isn't looked at isn't read.

    Raises:
        DataUnusableError: when files are missing, or events lack what an interaction needs.
    """
    folder = histories_folder(data_dir)
    if not folder.exists():
        from fm_intent.data.building import build

        build(data_dir)
    columns = {name: open_column(folder / f"{name}.npy") for name in (OFFSET, *COLUMNS)}
    return HistoryColumns(**columns, profile_id=StoredIds.open(folder))


def histories_folder(data_dir: Path) -> Path:
    """Where the histories of a source's events lie, once they are built.

    Raises:
        DataUnusableError: when the files are missing.
    """
    return data_dir / HISTORIES_FOLDER / histories_id(data_dir)


def read_plays(data_dir: Path, min_plays: int) -> HistoryColumns:
    """The plays in `data_dir` alone, in the order of the files, without rare titles.

    This is how benchmarks on MovieLens define a history: ratings of one second stay in the order of
    the publisher's file, which the session code, knowing no such order, can't keep.

    Args:
        data_dir: a source whose plays are single events: no one watches anything twice.
        min_plays: titles with fewer plays are left out.

    Raises:
        DataUnusableError: when the files are missing.
    """
    files = [path for of_day in event_days(data_dir).values() for path in of_day]
    table = pa.concat_tables(
        pq.read_table(path, columns=["event_type", "profile_id", "title_id", "occurred_at_ms"])
        for path in files
    )
    table = table.filter(pc.equal(table["event_type"], "play_complete"))
    titles = table["title_id"].combine_chunks().dictionary_encode()
    plays = np.bincount(titles.indices.to_numpy(), minlength=len(titles.dictionary))
    kept = plays[titles.indices.to_numpy()] >= min_plays
    profiles = pc.filter(table["profile_id"], kept).combine_chunks().dictionary_encode()
    profile = profiles.indices.to_numpy()
    order = np.argsort(profile, kind="stable")
    hashes = np.fromiter(map(hash64, titles.dictionary.to_pylist()), np.int64)
    count = len(order)
    return HistoryColumns(
        offset=np.concatenate([[0], np.bincount(profile).cumsum()]),
        title_hash=hashes[titles.indices.to_numpy()[kept][order]],
        action=np.full(count, ACTIONS.index("discover"), np.int8),
        start_ms=table["occurred_at_ms"].to_numpy()[kept][order],
        watched_share=np.full(count, -1, np.float32),
        device=np.zeros(count, np.uint32),
        watched_ms=np.zeros(count, np.int32),
        profile_id=np.array(profiles.dictionary.to_pylist(), np.str_),
    )


def is_of_ratings(data_dir: Path) -> bool:
    """Whether all that the source knows of its profiles is which titles they played, and when.

    Raises:
        DataUnusableError: when the files are missing.
    """
    return all(
        set(pc.unique(pq.read_table(path, columns=["event_type"])["event_type"]).to_pylist())
        <= {"play_complete", "impression"}
        for files in event_days(data_dir).values()
        for path in files
    )


def histories_id(data_dir: Path) -> str:
    """Names the histories that the session code of this edition makes of a source's events.

    Raises:
        DataUnusableError: when the files are missing.
    """
    digest = hashlib.sha256(data_sha256(data_dir).encode())
    digest.update(repr((EDITION, HistoryColumns._fields, ACTIONS)).encode())
    return digest.hexdigest()[:16]
