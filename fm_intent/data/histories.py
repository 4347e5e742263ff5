"""Histories of profiles, read from a source's events: flat columns, one profile behind the other.

`[N]` is the number of all interactions and `[P]` that of profiles.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_intent.data import contract
from fm_intent.data.catalogue import SourceCatalogue
from stream.domain.event_types import STATELESS, Event, event_of
from stream.domain.history import EDITION, histories
from stream.domain.labels import ACTIONS, hash64
from stream.domain.profile_state import Rules

_COLUMNS: Final = ("title_hash", "action", "start_ms", "watched_share", "device", "watched_ms")


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
    watched_ms: NDArray[np.int64]
    profile_id: NDArray[np.str_]
    """`[P]`."""


def read_histories(data_dir: Path) -> HistoryColumns:
    """The histories that the serving session code makes of the events in `data_dir`.

    They are kept beside the events, because a million events take half a minute; the file's name
    says which events and which session code it came from.

    Raises:
        DataUnusableError: when the files are missing.
    """
    kept = data_dir / f"histories-{histories_id(data_dir)}.npz"
    if not kept.exists():
        catalogue = SourceCatalogue.read(data_dir)
        by_profile = histories(
            _events(data_dir / contract.EVENTS_FILE), Rules(duration_ms=catalogue.duration_ms)
        )
        profiles = sorted(by_profile)
        rows = [by_profile[profile] for profile in profiles]
        columns = {name: np.concatenate([getattr(h, name) for h in rows]) for name in _COLUMNS}
        offset = np.cumsum([0, *(len(h.title_hash) for h in rows)])
        for stale in data_dir.glob("histories-*.npz"):
            stale.unlink(missing_ok=True)
        # Another run may be at the same, and takes for stale what is named like the whole.
        part = kept.with_name(f".{kept.stem}.{os.getpid()}.npz")
        ids = np.array(profiles, np.str_)
        np.savez(part, allow_pickle=False, offset=offset, profile_id=ids, **columns)
        part.replace(kept)
    with np.load(kept) as arrays:
        return HistoryColumns(**arrays)


def read_plays(data_dir: Path, min_plays: int) -> HistoryColumns:
    """The plays in `data_dir` alone, in the order of the file, without rare titles.

    This is how benchmarks on MovieLens define a history: ratings of one second stay in the order of
    the publisher's file, which the session code, knowing no such order, can't keep.

    Args:
        data_dir: a source whose plays are single events: no one watches anything twice.
        min_plays: titles with fewer plays are left out.

    Raises:
        DataUnusableError: when the files are missing.
    """
    table = contract.read(data_dir / contract.EVENTS_FILE)
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
        watched_ms=np.zeros(count, np.int64),
        profile_id=np.array(profiles.dictionary.to_pylist(), np.str_),
    )


def is_of_ratings(data_dir: Path) -> bool:
    """Whether all that the source knows of its profiles is which titles they played, and when.

    Raises:
        DataUnusableError: when the files are missing.
    """
    types = pc.unique(contract.read(data_dir / contract.EVENTS_FILE)["event_type"]).to_pylist()
    return set(types) <= {"play_complete", "impression"}


def data_sha256(data_dir: Path) -> str:
    """Digest of a source's two files."""
    digest = hashlib.sha256()
    for name in (contract.CATALOGUE_FILE, contract.EVENTS_FILE):
        path = data_dir / name
        if not path.exists():
            raise contract.missing(path)
        digest.update(path.read_bytes())
    return digest.hexdigest()


def histories_id(data_dir: Path) -> str:
    """Names the histories that the session code of this edition makes of a source's events.

    Raises:
        DataUnusableError: when the files are missing.
    """
    digest = hashlib.sha256(data_sha256(data_dir).encode())
    digest.update(repr((EDITION, HistoryColumns._fields, ACTIONS)).encode())
    return digest.hexdigest()[:16]


def _events(path: Path) -> Iterator[Event]:
    table = contract.read(path)
    table = table.filter(pc.invert(pc.is_in(table["event_type"], pa.array(STATELESS))))
    for batch in table.to_batches():
        columns = batch.to_pydict()
        for row in zip(*columns.values(), strict=True):
            yield event_of(dict(zip(columns, row, strict=True)))
