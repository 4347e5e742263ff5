"""The contract on disk between sources, training and replay: two Parquet files per source.

`catalogue.parquet` has one row per title, `events.parquet` one row per clean event, ordered by
`(occurred_at_ms, event_id)`. A null is a value that the source does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream.domain.labels import GENRES, KINDS
from stream.exceptions import DataUnusableError, UnexpectedDataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CATALOGUE_FILE: Final = "catalogue.parquet"
EVENTS_FILE: Final = "events.parquet"

CATALOGUE_SCHEMA: Final = pa.schema(
    [
        pa.field("title_id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("kind", pa.string()),
        pa.field("genres", pa.list_(pa.string()), nullable=False),
        pa.field("release_day", pa.int32()),
        pa.field("duration_s", pa.float32()),
    ]
)
"""`release_day` counts days since 1970-01-01 and may be negative; `duration_s` is one sitting's."""

EVENTS_SCHEMA: Final = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("profile_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("occurred_at_ms", pa.int64(), nullable=False),
        pa.field("title_id", pa.string()),
        pa.field("playback_id", pa.string()),
        pa.field("watched_s", pa.float64()),
        pa.field("position_s", pa.float64()),
        pa.field("duration_s", pa.float64()),
        pa.field("season", pa.int32()),
        pa.field("episode", pa.int32()),
        pa.field("device", pa.string()),
        pa.field("country", pa.string()),
        pa.field("query", pa.string()),
    ]
)
"""Field names and meanings are those of the JSON event."""


def table(schema: pa.Schema, columns: Mapping[str, pa.Array]) -> pa.Table:
    """A table of `schema`; columns that are not given are null in every row."""
    rows = len(next(iter(columns.values())))
    return pa.table(
        [
            columns[field.name] if field.name in columns else pa.nulls(rows, field.type)
            for field in schema
        ],
        schema=schema,
    )


def sorted_events(events: pa.Table) -> pa.Table:
    """`events` in the order of the contract."""
    return events.sort_by([("occurred_at_ms", "ascending"), ("event_id", "ascending")])


def write(directory: Path, catalogue: pa.Table, events: pa.Table) -> None:
    """Check both tables against the contract and write them into `directory`.

    Raises:
        UnexpectedDataError: when an id repeats, a label is unknown, an event names a title that the
            catalogue lacks, or the events are out of order.
    """
    _require(pc.count_distinct(catalogue["title_id"]).as_py() == len(catalogue), "title ids repeat")
    _require(pc.count_distinct(events["event_id"]).as_py() == len(events), "event ids repeat")
    genres = set(pc.unique(pc.list_flatten(catalogue["genres"])).to_pylist())
    _require(genres <= set(GENRES), f"unknown genres {sorted(genres - set(GENRES))}")
    kinds = set(pc.unique(catalogue["kind"].drop_null()).to_pylist())
    _require(kinds <= set(KINDS), f"unknown kinds {sorted(kinds - set(KINDS))}")
    named = pc.unique(events["title_id"].drop_null())
    known = pc.all(pc.is_in(named, value_set=pc.unique(catalogue["title_id"]))).as_py()
    _require(known is not False, "an event names a title that is not in the catalogue")
    times = events["occurred_at_ms"].to_numpy()
    _require(bool((times[1:] >= times[:-1]).all()), "events are not ordered by time")

    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(catalogue.cast(CATALOGUE_SCHEMA), directory / CATALOGUE_FILE)
    pq.write_table(events.cast(EVENTS_SCHEMA), directory / EVENTS_FILE, compression="zstd")


def read(path: Path) -> pa.Table:
    """The table in one of a source's files.

    Raises:
        DataUnusableError: when the file is missing.
    """
    if not path.exists():
        raise missing(path)
    return pq.read_table(path)


def missing(path: Path) -> DataUnusableError:
    """The error that a source's file is not there."""
    return DataUnusableError(
        f"{path} is missing; prepare the source first (`make demo` does so), or name another folder"
    )


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise UnexpectedDataError(f"{complaint}; the converter of this source needs mending")
