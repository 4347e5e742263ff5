"""Remembers erased profiles for as long as earlier rows may still be landed.

    FOLDER/.erasures/TOPIC@PARTITION-FIRST-LAST.json

A worker that has erased a profile writes a tombstone behind the profile's last row on the topic
`intent-features`; the sink notes it here, durably, before it commits behind it. From then on no row
from before the erasure lands, none is read from the files that are there, whether for training or
to be materialized, and `features.offline.rewriting` takes them out of the files. A note goes when
that is done and everything that had been published by then has landed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.fs import FileSelector, LocalFileSystem

from features.schema.views import intent_features, profile_intent
from stream.domain.feature_row import Erasure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from pyarrow.fs import FileSystem

FOLDER: Final = ".erasures"

COLUMNS: Final = (
    profile_intent.join_key,
    intent_features.timestamp_field,
    intent_features.created_timestamp_column,
)
"""Columns that tell whether a row is from before an erasure."""

_MILLISECONDS: Final = pa.timestamp("ms", tz="UTC")


class Note(NamedTuple):
    """One file of erasures."""

    name: str
    noted_at_ms: int
    """When it was written, in Unix milliseconds of the sink's clock."""
    erasures: Mapping[str, Erasure]
    """Erasures by profile id."""


def encoded(erasures: Mapping[str, Erasure], noted_at_ms: int) -> bytes:
    """The content of a note's file."""
    times = {profile_id: list(erasure) for profile_id, erasure in erasures.items()}
    return orjson.dumps({"noted_at_ms": noted_at_ms, "erasures": times})


def notes(folder: str | Path, filesystem: FileSystem | None = None) -> list[Note]:
    """The notes beside landed files, oldest first.

    Args:
        folder: The batch source's folder.
        filesystem: Where it is; by default on this machine.

    Raises:
        OSError: when one can't be read. Nothing may be read of the landed files then.
    """
    filesystem = filesystem or LocalFileSystem()
    selector = FileSelector(f"{folder}/{FOLDER}", allow_not_found=True)
    found = []
    for file in filesystem.get_file_info(selector):
        if file.base_name.startswith(".") or not file.base_name.endswith(".json"):
            continue
        try:
            with filesystem.open_input_stream(file.path) as stream:
                held = orjson.loads(stream.read())
            erasures = {name: Erasure(*times) for name, times in held["erasures"].items()}
            found.append(Note(file.base_name, held["noted_at_ms"], erasures))
        except FileNotFoundError:
            # It went since the listing: the files have been written anew.
            continue
        except (ValueError, LookupError, TypeError) as error:
            raise OSError(
                f"{file.path} is no note of erasures ({error}). Put a whole copy in its place; or "
                "move it away and ask for the erasures of that day again."
            ) from error
    return sorted(found, key=lambda note: note.noted_at_ms)


def joined(found: Iterable[Note]) -> dict[str, Erasure]:
    """The last erasure of each profile."""
    erasures: dict[str, Erasure] = {}
    for note in found:
        for profile_id, one in note.erasures.items():
            known = erasures.get(profile_id, one)
            erasures[profile_id] = Erasure(*map(max, known, one))
    return erasures


def are_erased(rows: pa.Table, erasures: Mapping[str, Erasure]) -> NDArray[np.bool_]:
    """Which rows (with `COLUMNS`) are from before their profile's erasure."""
    ids = pa.array(erasures, pa.string())
    places = pc.index_in(rows[COLUMNS[0]].cast(pa.string()), value_set=ids).to_numpy()
    found = np.flatnonzero(~np.isnan(places.astype(float)))
    until = np.array(list(erasures.values()), np.int64).reshape(-1, 2)[places[found].astype(int)]
    event_ms, created_ms = (
        rows[name].cast(_MILLISECONDS, safe=False).cast(pa.int64()).to_numpy()[found]
        for name in COLUMNS[1:]
    )
    erased = np.zeros(len(rows), bool)
    erased[found] = (event_ms <= until.max(axis=1)) | (created_ms <= until[:, 0])
    return erased
