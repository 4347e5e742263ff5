"""The join of requests with landed rows, in DuckDB: out of core, in the order of the requests.

Two scans of each view. The first reads what orders rows, leaves out what the fence refused and what
was erased, and finds each request's row by an ASOF join: a file, and a place in it. The second
reads the features of those places alone, and lays them down by portions of the requests: rows that
wide are never sorted as a whole. All that goes into the folder for temporary files (TMPDIR), like
what doesn't fit into the memory that is allowed.

A place holds only while the files stay as they were listed. When one was written anew meanwhile, or
went (see `features.offline.rewriting` and `features.offline.merging`), the join begins anew.
"""

# ruff: noqa: S608 - names and paths are quoted; values are numbers

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast.infra.offline_stores.file_source import FileSource
from feast.types import from_feast_to_pyarrow_type
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import LocalFileSystem

from features.offline.erasures import COLUMNS, joined, notes
from features.offline.merging import standing
from features.online.fenced_writes import SEQUENCE_FEATURE
from stream.exceptions import FilesChangedError, NothingLandedError

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd
    from feast import FeatureView, RepoConfig
    from feast.data_source import DataSource
    from pyarrow.fs import FileInfo, FileSystem

    from stream.domain.feature_row import Erasure

BATCH: Final = 16_384
"""Rows of an answer that are handed on at once."""

_PORTION: Final = 4 * BATCH
"""Requests whose features are laid down together, at least; they are held in memory."""

_PORTIONS: Final = 256
"""At most: a file each is open."""

_LIGHTLY: Final = pa.ipc.IpcWriteOptions(compression="lz4")

_ATTEMPTS: Final = 5
_PLACE: Final = "(file_index::BIGINT << 32) | file_row_number"


class Wanted(NamedTuple):
    """What is asked of one view."""

    view: FeatureView
    features: Sequence[str]
    prefix: str
    """Put before the features' names in the answer."""


class Source(NamedTuple):
    """The files of a batch source as they are at one moment."""

    filesystem: FileSystem
    infos: Sequence[FileInfo]
    schema: pa.Schema
    """That of the newest file; a column that a file lacks is null there."""
    erasures: Mapping[str, Erasure]

    def is_as_listed(self) -> bool:
        """Whether every file is still there, and is the one that was listed."""
        now = self.filesystem.get_file_info([one.path for one in self.infos])
        return [*map(_identity, now)] == [*map(_identity, self.infos)]

    def relation(self) -> str:
        """What DuckDB reads them by. Needs `_open` to know the file system."""
        name = self.filesystem.type_name
        prefix = "" if name == "local" else f"{name}://"
        paths = ", ".join(_text(prefix + one.path) for one in self.infos)
        return f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"


def _identity(info: FileInfo) -> tuple[str, int | None, int | None]:
    return info.path, info.size, info.mtime_ns


def source_of(config: RepoConfig, source: DataSource, last_folder: str = "") -> Source:
    """The files of a batch source, without those in folders by date after `last_folder`.

    Raises:
        NothingLandedError: when there is none at all.
        OSError: when they can't be listed, or a note beside them can't be read.
    """
    where = FileSource.get_uri_for_file_path(config.repo_path, source.file_options.uri)
    filesystem, path = FileSource.create_filesystem_and_path(
        where, source.file_options.s3_endpoint_override
    )
    filesystem = filesystem or LocalFileSystem()
    # Before the files are listed: a note goes only after they were written anew.
    erasures = joined(notes(path, filesystem))
    found = standing(path, filesystem)
    if not found:
        raise NothingLandedError(
            f"There are no files in {where}. `intentstream sink` makes those of intents, "
            "`intentstream titles` those of titles; INTENT_OFFLINE_DIR says where."
        )
    schema = pq.read_schema(found[-1].path, filesystem=filesystem)
    if last_folder:
        # One file stays, so that there is something to read in any case.
        found = [one for one in found if _date_folder(one.path) <= last_folder] or found[:1]
    return Source(filesystem, found, schema, erasures)


def _date_folder(file: str) -> str:
    return next((part for part in reversed(file.split("/")) if part.startswith("date=")), "")


def answers(
    config: RepoConfig, requests: pa.Table, time: str, wanted: Sequence[Wanted], from_creation: bool
) -> Iterator[pa.Table]:
    """The requests in portions, in their order, with the features served at their moments.

    Args:
        config: The store's configuration.
        requests: The join keys of every view and the column `time`; all of its columns come back.
        time: Name of the column of their moments.
        wanted: The features of each view.
        from_creation: Whether rows of views that aren't live count from their creation on, too.

    Raises:
        NothingLandedError: when a view's batch source has no file.
        FilesChangedError: when files go on changing while they are read.
    """
    names = dict.fromkeys(chain.from_iterable(keys(one.view)[1] for one in wanted))
    asked = pa.table(
        {
            "number": np.arange(len(requests)),
            "moment": _microseconds(requests[time]),
            **{f"key {name}": requests[name] for name in names},
        }
    )
    until = pc.max(requests[time]).as_py()

    def read(
        connection: duckdb.DuckDBPyConnection, sources: list[Source], folder: Path
    ) -> Iterator[pa.Table]:
        connection.register("given", asked)
        connection.execute("CREATE TEMP TABLE asked AS FROM given")
        size = max(_PORTION, -(-len(requests) // _PORTIONS))
        laid = []
        for number, one in enumerate(wanted):
            source = source_of(config, one.view.batch_source, _last_folder(one.view, until))
            sources.append(source)
            _open(connection, source)
            _find(connection, number, one.view, source, from_creation)
            laid.append(_laid_down(connection, number, one, source, size, folder))
        return (
            _answer(requests.slice(first, size), laid, portion)
            for portion, first in enumerate(range(0, max(len(requests), 1), size))
        )

    for table in _settled(config, read):
        for first in range(0, max(len(table), 1), BATCH):
            yield table.slice(first, BATCH)


class _LaidDown(NamedTuple):
    """The features of one view, in a file for each portion of the requests that has any."""

    files: Mapping[int, Path]
    schema: pa.Schema
    """Their names and types in the answer."""


def _laid_down(
    connection: duckdb.DuckDBPyConnection,
    number: int,
    one: Wanted,
    source: Source,
    size: int,
    folder: Path,
) -> _LaidDown:
    """Write the features of the places in `found_NUMBER`, portion by portion of `size` requests."""
    held = connection.sql(f"FROM {source.relation()}").columns
    columns: list[str] = []
    fields: list[pa.Field] = []
    for feature in one.features:
        name, field = _stored(one.view, feature), _field(source, one.view, feature)
        # All files may be of a release before the column.
        column = f"landed.{_quoted(name)}" if name in held else _null(field.type)
        columns.append(f"{column} AS c{len(columns)}")
        fields.append(field.with_name(one.prefix + feature))
    reader = connection.sql(
        f"SELECT {', '.join(['number // $size AS portion', 'number % $size AS row', *columns])} "
        f"FROM (SELECT *, {_PLACE} AS place FROM {source.relation()}) AS landed "
        f"JOIN found_{number} USING (place)",
        params={"size": size},
    ).to_arrow_reader(BATCH)
    files: dict[int, Path] = {}
    with ExitStack() as opened:
        writers: dict[int, pa.RecordBatchFileWriter] = {}
        for batch in reader:
            order = np.argsort(batch["portion"].to_numpy(), kind="stable")
            ordered = batch.take(pa.array(order))
            portions = ordered["portion"].to_numpy()
            starts = np.flatnonzero(np.diff(portions, prepend=-1)).tolist()
            for start, end in pairwise([*starts, len(ordered)]):
                portion = int(portions[start])
                if portion not in writers:
                    files[portion] = folder / f"{number}-{portion}.arrow"
                    writer = pa.ipc.new_file(files[portion], ordered.schema, options=_LIGHTLY)
                    writers[portion] = opened.enter_context(writer)
                writers[portion].write_batch(ordered.slice(start, end - start))
    return _LaidDown(files, pa.schema(fields))


def _answer(requests: pa.Table, laid: Sequence[_LaidDown], portion: int) -> pa.Table:
    """The requests of a portion with their features."""
    for view in laid:
        if portion in view.files:
            with pa.ipc.open_file(view.files[portion]) as file:
                found = file.read_all()
        else:
            found = pa.table({"row": pa.array([], pa.int64())})
        place = np.full(len(requests), -1)
        place[found["row"].to_numpy()] = np.arange(len(found))
        taken = pa.array(place, mask=place < 0)
        for number, field in enumerate(view.schema):
            column = found[f"c{number}"] if len(found) else pa.chunked_array([], field.type)
            requests = requests.append_column(field, column.cast(field.type).take(taken))
    return requests


def newest(
    config: RepoConfig,
    source: DataSource,
    entity: Sequence[str],
    features: Sequence[str],
    times: Sequence[str],
    start: datetime | None,
    end: datetime | None,
) -> Iterator[pa.Table]:
    """The newest row of each entity, in portions.

    Args:
        config: The store's configuration.
        source: The batch source.
        entity: The columns of its join keys.
        features: The columns of its features.
        times: Its columns of event time and, if it has one, of creation.
        start: Of event times, or None.
        end: Of event times, or None.

    Raises:
        NothingLandedError: when the source has no file.
        FilesChangedError: when files go on changing while they are read.
    """
    event = _epoch(times[0])
    order = [event]
    if SEQUENCE_FEATURE in features:
        order.append(_quoted(SEQUENCE_FEATURE))
    order += map(_epoch, times[1:])
    bounds = [
        f"{event} {sign} {round(_timestamp(bound))}"
        for sign, bound in ((">=", start), ("<=", end))
        if bound
    ]

    def read(
        connection: duckdb.DuckDBPyConnection, sources: list[Source], _: Path
    ) -> Iterator[pa.Table]:
        landed = source_of(config, source)
        sources.append(landed)
        _open(connection, landed)
        where = " AND ".join([*bounds, _standing(connection, 0, landed)])
        by = ", ".join(map(_quoted, entity)) or "()"
        connection.execute(
            f"CREATE TEMP TABLE found AS SELECT arg_max({_PLACE}, ({', '.join(order)}, {_PLACE})) "
            f"AS place FROM {landed.relation()} AS landed WHERE {where} GROUP BY {by}"
        )
        names = [*entity, *features, *times]
        found = connection.sql(f"FROM {landed.relation()} LIMIT 0").to_arrow_table().schema
        # The newest file may be of a release before a column, and all of them may be.
        fields = [
            landed.schema.field(name)
            if name in landed.schema.names
            else found.field(name)
            if name in found.names
            else pa.field(name, pa.null())
            for name in names
        ]
        columns = ", ".join(
            _quoted(name) if name in found.names else f"NULL AS {_quoted(name)}" for name in names
        )
        return _in_order(
            connection,
            f"SELECT {columns} FROM found JOIN (SELECT *, {_PLACE} AS place "
            f"FROM {landed.relation()}) AS read USING (place) ORDER BY place",
            pa.schema(fields),
        )

    return _settled(config, read)


def begun(
    config: RepoConfig,
    view: FeatureView,
    start: datetime | None,
    end: datetime,
    from_creation: bool,
) -> pd.DataFrame:
    """The join keys of every entity of which a row began to count between two times.

    Raises:
        NothingLandedError: when the view's batch source has no file.
        FilesChangedError: when files go on changing while they are read.
    """
    own = [_stored(view, name) for name in keys(view)[0]]

    def read(
        connection: duckdb.DuckDBPyConnection, sources: list[Source], _: Path
    ) -> Iterator[pa.Table]:
        source = source_of(config, view.batch_source, _last_folder(view, end))
        sources.append(source)
        _open(connection, source)
        since = _since(view, from_creation)
        where = [_standing(connection, 0, source), f"{since} <= {_timestamp(end)}"]
        if start:
            where.append(f"{since} >= {_timestamp(start)}")
        return _in_order(
            connection,
            f"SELECT DISTINCT {', '.join(map(_quoted, own))} FROM {source.relation()} AS landed "
            f"WHERE {' AND '.join(where)} ORDER BY ALL",
            pa.schema([source.schema.field(name) for name in own]),
        )

    return pa.concat_tables(_settled(config, read)).rename_columns(keys(view)[1]).to_pandas()


def keys(view: FeatureView) -> tuple[list[str], list[str]]:
    """The view's own names of its join keys, and those of the requests."""
    own = [column.name for column in view.entity_columns]
    return own, [view.projection.join_key_map.get(name, name) for name in own]


def _in_order(
    connection: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema
) -> Iterator[pa.Table]:
    """The rows of a query, with the names and types of `schema`, in its order.

    The query ends in an order, so all files have been read when this returns.
    """
    reader = connection.sql(query).to_arrow_reader(BATCH)
    batches = [*islice(reader, 1)]

    def tables() -> Iterator[pa.Table]:
        for batch in chain(batches, reader):
            table = pa.Table.from_batches([batch]).rename_columns(schema.names)
            yield table.cast(schema)

    return tables() if batches else iter([schema.empty_table()])


_Read = Callable[[duckdb.DuckDBPyConnection, list[Source], Path], "Iterator[pa.Table]"]


def _settled(config: RepoConfig, read: _Read) -> Iterator[pa.Table]:
    """Rows read from files that stayed as they were until all had been read.

    Args:
        config: The store's configuration.
        read: Tells the sources that it listed, reads all that it needs of them, and returns the
            rows; it may leave them in the folder, which is for this attempt alone.
    """
    for _ in range(_ATTEMPTS):
        sources: list[Source] = []
        with _session(config.offline_store.memory_mib) as (connection, folder):
            try:
                tables = read(connection, sources, folder)
            except (duckdb.Error, FileNotFoundError):
                if all(source.is_as_listed() for source in sources):
                    raise
                continue
            if not all(source.is_as_listed() for source in sources):
                continue
            yield from tables
            return
    raise FilesChangedError(
        f"Landed files changed {_ATTEMPTS} times while they were read. Ask again when no erasure "
        "is being carried out; ask for less at once if that goes on."
    )


@contextmanager
def _session(memory_mib: int) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    with (
        TemporaryDirectory(prefix="as-served-") as folder,
        duckdb.connect(
            config={"memory_limit": f"{memory_mib}MiB", "temp_directory": folder}
        ) as connection,
    ):
        connection.execute("SET enable_progress_bar = false")
        # What is in order says so in the query; else it would be held back for it.
        connection.execute("SET preserve_insertion_order = false")
        yield connection, Path(folder)


def _open(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Let DuckDB read files that are elsewhere as we do."""
    name = source.filesystem.type_name
    if name != "local" and not connection.filesystem_is_registered(name):
        connection.register_filesystem(ArrowFSWrapper(source.filesystem))


def _find(
    connection: duckdb.DuckDBPyConnection,
    number: int,
    view: FeatureView,
    source: Source,
    from_creation: bool,
) -> None:
    """Make the table `found_NUMBER`: the numbers of requests that have a row, and its place."""
    own, asked = keys(view)
    stored = [_quoted(_stored(view, name)) for name in own]
    names = [_quoted(f"key {name}") for name in asked]
    entities = f"entities_{number}"
    told = f"DISTINCT {', '.join(names)} FROM asked" if names else "0 AS everybody"
    connection.execute(
        f"CREATE TEMP TABLE {entities} AS "
        f"SELECT *, (row_number() OVER ())::INT AS id FROM (SELECT {told})"
    )
    is_entity = " AND ".join(f"{a} = {b}" for a, b in zip(stored, names, strict=True)) or "true"
    is_asked = " AND ".join(f"asked.{name} = entity.{name}" for name in names) or "true"
    ttl = round(view.ttl.total_seconds() * 1e6) if view.ttl else None
    place = "place" if ttl is None else f"CASE WHEN event >= moment - {ttl} THEN place END"
    connection.execute(
        f"""
        CREATE TEMP TABLE found_{number} AS
        WITH counting AS (
            SELECT id, {_since(view, from_creation)} AS since, {_rank(view, from_creation)} AS rank,
                {_epoch(_stored(view, view.batch_source.timestamp_field))} AS event,
                {_PLACE} AS place
            FROM {source.relation()} AS landed JOIN {entities} ON {is_entity}
            WHERE since <= (SELECT max(moment) FROM asked)
                AND {_standing(connection, number, source)}
        ),
        -- What the fence refuses is never served, and the equal overwrites.
        served AS (
            SELECT id, since, event, place FROM counting
            WINDOW before AS (PARTITION BY id ORDER BY since, rank, place)
            QUALIFY rank >= max(rank) OVER before AND lead(since) OVER before IS DISTINCT FROM since
        )
        SELECT number, {place} AS place
        FROM (
            SELECT number, moment, id FROM asked JOIN {entities} AS entity ON {is_asked}
        ) AS asking
        ASOF JOIN served ON asking.id = served.id AND asking.moment >= served.since
        """
    )


def _standing(connection: duckdb.DuckDBPyConnection, number: int, source: Source) -> str:
    """The condition that a row (of `landed`) is not from before its profile's erasure."""
    if not source.erasures:
        return "true"
    until = np.array(list(source.erasures.values()), np.int64).reshape(-1, 2)
    erased = {
        "profile": pa.array(source.erasures, pa.string()),
        "until_event": until.max(axis=1),
        "until_creation": until[:, 0],
    }
    connection.register(f"erased_{number}", pa.table(erased))
    profile, event, created = COLUMNS
    return (
        f"NOT EXISTS (FROM erased_{number} WHERE profile = landed.{_quoted(profile)} "
        f"AND ({_epoch(event)} // 1000 <= until_event "
        f"OR {_epoch(created)} // 1000 <= until_creation))"
    )


def _is_live(view: FeatureView) -> bool:
    return any(feature.name == SEQUENCE_FEATURE for feature in view.features)


def _last_folder(view: FeatureView, until: datetime | None) -> str:
    """Rows that are written live lie in folders by the date of their creation."""
    return f"date={until:%Y-%m-%d}" if _is_live(view) and until else ""


def _since(view: FeatureView, from_creation: bool) -> str:
    """The time from which a row counts, in microseconds."""
    event, created = view.batch_source.timestamp_field, view.batch_source.created_timestamp_column
    if _is_live(view):
        return _epoch(_stored(view, created))
    if from_creation and created:
        return f"greatest({_epoch(_stored(view, event))}, {_epoch(_stored(view, created))})"
    return _epoch(_stored(view, event))


def _rank(view: FeatureView, from_creation: bool) -> str:
    """What makes a row of one entity newer than another: one number of two."""
    event, created = (
        name and _epoch(_stored(view, name))
        for name in (
            view.batch_source.timestamp_field,
            view.batch_source.created_timestamp_column,
        )
    )
    if _is_live(view):
        first, second = event, _quoted(_stored(view, SEQUENCE_FEATURE))
    elif created:
        first, second = (created, event) if from_creation else (event, created)
    else:
        first, second = event, "0"
    return f"({first}::HUGEINT * {2**64} + {second})"


def _field(source: Source, view: FeatureView, name: str) -> pa.Field:
    """A feature's column as the newest file has it, else as it is declared."""
    stored = _stored(view, name)
    if stored in source.schema.names:
        return source.schema.field(stored)
    declared = next(one.dtype for one in view.features if one.name == name)
    return pa.field(stored, from_feast_to_pyarrow_type(declared))


def _null(kind: pa.DataType) -> str:
    relation = duckdb.from_arrow(pa.schema([("null", kind)]).empty_table())
    return f"NULL::{relation.types[0]}"


def _stored(view: FeatureView, name: str) -> str:
    """The batch source's own name of a column."""
    stored = {name: column for column, name in view.batch_source.field_mapping.items()}
    return str(stored.get(name, name))


def _epoch(column: str) -> str:
    """A column's time in microseconds; without a zone it is UTC, as Feast has it."""
    return f"epoch_us({_quoted(column)})"


def _timestamp(time: datetime) -> int:
    return int(_microseconds(pa.chunked_array([[time]]))[0].as_py())


def _microseconds(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times.cast(pa.timestamp("us", times.type.tz), safe=False).cast(pa.int64())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
