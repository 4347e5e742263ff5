"""The contract on disk between sources, training and replay: two Parquet files per source.

`catalogue.parquet` has one row per title, `events.parquet` one row per clean event, ordered by
`(occurred_at_ms, event_id)`. A null is a value that the source does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fm_intent.data.faults import BY_NAME
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
        UnexpectedDataError: with everything that breaks it: ids that repeat, labels that aren't
            those of `stream.domain.labels`, events of titles that the catalogue lacks, or out of
            order. Nothing is written then.
    """
    if told := broken(catalogue, events):
        raise UnexpectedDataError(
            f"{directory} is not written, as its data break the contract:\n" + "\n".join(told)
        )
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(catalogue.cast(CATALOGUE_SCHEMA), directory / CATALOGUE_FILE)
    pq.write_table(events.cast(EVENTS_SCHEMA), directory / EVENTS_FILE, compression="zstd")


def broken(catalogue: pa.Table, events: pa.Table) -> list[str]:
    """Every way in which two tables break the contract: how often, five examples, what to do."""
    titles = catalogue["title_id"]
    genres, kinds = pc.list_flatten(catalogue["genres"]), catalogue["kind"]
    times = events["occurred_at_ms"].to_numpy()
    earlier = np.flatnonzero(times[1:] < times[:-1]) + 1
    return [
        f"{len(found):,} of {of:,} {what}: "
        f"{', '.join(map(str, pc.unique(found)[:_EXAMPLES].to_pylist()))}. {advice}"
        for found, of, what, advice in (
            (_repeated(titles), len(titles), *_told("title_repeats")),
            (_repeated(events["event_id"]), len(events), *_told("event_id_reused")),
            (_not_in(events["title_id"], titles), len(events), *_told("title_unknown")),
            (_not_in(genres, pa.array(GENRES)), len(genres), *_UNKNOWN_LABEL),
            (_not_in(kinds, pa.array(KINDS)), len(kinds), *_UNKNOWN_LABEL),
            (events["event_id"].take(pa.array(earlier)), len(events), *_DISORDER),
        )
        if len(found)
    ]


_EXAMPLES: Final = 5
_UNKNOWN_LABEL: Final = (
    "labels aren't those of stream.domain.labels",
    "Map them where this source is converted.",
)
_DISORDER: Final = (
    "events are earlier than the one before them",
    "Order them where this source is converted, by `sorted_events`.",
)


def _told(name: str) -> tuple[str, str]:
    fault = BY_NAME[name]
    return f"{fault.of} {fault.what}", fault.advice


def _repeated(values: pa.ChunkedArray) -> pa.Array:
    """The values that stand there before."""
    counts = pc.value_counts(values)
    more = pc.greater(counts.field("counts"), 1)
    repeats = counts.filter(more)
    times = np.asarray(repeats.field("counts")) - 1
    return repeats.field("values").take(pa.array(np.repeat(np.arange(len(repeats)), times)))


def _not_in(values: pa.ChunkedArray, known: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    values = values.drop_null()
    return values.filter(pc.invert(pc.is_in(values, value_set=pc.unique(known))))


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
