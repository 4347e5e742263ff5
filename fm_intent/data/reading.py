"""A service's catalogue and events, as its `source.yaml` describes them, in our columns.

DuckDB reads the files, so that no table of events is ever held in memory.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

import duckdb
import pyarrow as pa

from fm_intent.data.contract import CATALOGUE_SCHEMA, EVENTS_SCHEMA
from fm_intent.data.description import CatalogueColumn
from fm_intent.data.files import Files, connect, find_files, quoted, scan, text
from fm_intent.data.importing import Tally, adapted
from stream.adapters.registry import reader
from stream.exceptions import BadRecordError, DataUnusableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fm_intent.data.description import EventFiles, SourceDescription

OURS: Final = "intent"
"""The adapter of records that are events of ours already."""

USABLE: Final = (
    "event_id IS NOT NULL AND profile_id IS NOT NULL AND event_type IS NOT NULL "
    "AND occurred_at_ms IS NOT NULL"
)
"""What a row of `events_sql` needs to be an event, in SQL."""


class Refusal(NamedTuple):
    """Why a record that an adapter was to read is no event."""

    filename: str
    record: int
    """Its number in the file, from 1."""
    reason: str
    detail: str
    is_unreadable: bool
    """Whether it is no record at all, as a line that was cut short; else the adapter refused it."""

    @property
    def why(self) -> str:
        """The reason, the record and the detail."""
        return f"{self.reason}, record {self.record}: {self.detail}"


_TYPES: Final = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
}
_PER_MS: Final = {"s": 1000.0, "ms": 1.0, "us": 0.001}
_EPOCH: Final = "DATE '1970-01-01'"


def read_catalogue_files(description: SourceDescription) -> pa.Table:
    """The titles, in `CATALOGUE_SCHEMA` and the files' order.

    Kinds and genres are those of the source after aliases, each once a title, without those that
    the labels' rules exclude. A title without a
    name is named by its id. Left out are rows without an id, all but the first of an id, and what
    `exclude` names.

    Raises:
        DataUnusableError: when files or columns are missing or can't be read.
    """
    titles = catalogue_rows(description)
    of_genres, of_kinds = description.labels.genres, description.labels.kinds
    kinds = [next(iter(of_kinds.named([one])), None) for one in titles["kind"].to_pylist()]
    genres = [of_genres.named(listed) for listed in titles["genres"].to_pylist()]
    left_out = description.exclude
    seen = {None, *left_out.titles}
    kept = []
    for row, title in enumerate(titles["title_id"].to_pylist()):
        if title not in seen and kinds[row] not in left_out.kinds:
            kept.append(row)
        seen.add(title)
    titles = titles.set_column(2, "kind", pa.array(kinds, pa.string()))
    titles = titles.set_column(3, "genres", pa.array(genres, pa.list_(pa.string())))
    return titles.take(pa.array(kept, pa.int64())).cast(CATALOGUE_SCHEMA)


def catalogue_rows(description: SourceDescription) -> pa.Table:
    """Every row of the catalogue's files, as the source spells it, with all that is wrong in it.

    The columns are those of `CATALOGUE_SCHEMA`; an id may be null.

    Raises:
        DataUnusableError: when files or columns are missing or can't be read.
    """
    told = description.catalogue
    names = {one: told.columns.get(one, one) for one in get_args(CatalogueColumn)}
    files = find_files(told.path, told.format)
    with reading(files) as connection:
        connection.execute("SET preserve_insertion_order = true")
        source = scan(files, names.values())
        types = described(connection, source)
        needed = ("title_id", names["title_id"])
        _require(files, types, [needed, *told.columns.items()], "catalogue")
        has = {one: quoted(theirs) for one, theirs in names.items() if theirs in types}
        title_id, name, kind = (_text(has.get(one)) for one in ("title_id", "name", "kind"))
        genres = _genres(has.get("genres"), types.get(names["genres"], ""), told.genres_separator)
        day = _day(has.get("release_day"), types.get(names["release_day"], ""))
        year = f"TRY_CAST(left({_text(has.get('release_year'))}, 4) AS INTEGER)"
        first = f"TRY(make_date({year}, 1, 1)) - {_EPOCH}"
        seconds, minutes = (_number(has.get(one)) for one in ("duration_s", "duration_min"))
        sql = f"""
            SELECT {title_id} AS title_id, coalesce({name}, {title_id}) AS name, {kind} AS kind,
                {genres} AS genres, CAST(coalesce({day}, {first}) AS INTEGER) AS release_day,
                CAST(coalesce({seconds}, 60 * {minutes}) AS FLOAT) AS duration_s
            FROM ({source})"""
        return connection.sql(sql).to_arrow_table()


def event_batches(
    description: SourceDescription,
    rows: int = 131_072,
    refuse: Callable[[Refusal], None] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The events, in `EVENTS_SCHEMA` and in no order.

    What `exclude` names is left out, and what has no id, profile, type or time, which `intentstream
    data check` counts. Devices are as the source spells them.

    Args:
        description: Of the source.
        rows: Of a batch at most.
        refuse: As of `events_sql`.

    Raises:
        DataUnusableError: when files or columns are missing or can't be read.
        UnknownAdapterError: when there is no such adapter.
        AdapterOptionsError: when its options are wrong.
    """
    files = find_files(description.events.path, description.events.format)
    with reading(files) as connection:
        columns = ", ".join(map(quoted, EVENTS_SCHEMA.names))
        every = events_sql(connection, description, files, refuse)
        sql = f"SELECT {columns} FROM ({every}) WHERE {USABLE}"
        for batch in connection.sql(sql).to_arrow_reader(rows):
            yield batch.cast(EVENTS_SCHEMA)


def events_sql(
    connection: duckdb.DuckDBPyConnection,
    description: SourceDescription,
    files: Files,
    refuse: Callable[[Refusal], None] | None = None,
) -> str:
    """SQL of every record of the events' files, in the columns of `EVENTS_SCHEMA`.

    Three more say where it comes from: `filename`, `time_text`, the time as the source spells it,
    and `number_text`, the first number that can't be read, by its column's name, null where all
    can. What can't be read as a column's type is null. What `exclude` names is left out.

    Args:
        connection: That will run it; it gets the tables that the SQL needs.
        description: Of the source.
        files: Of its events.
        refuse: Is told of each record that can't be read or that the adapter refuses; then DuckDB's
            table `reject_errors` has the lines of CSV that are none.

    Raises:
        DataUnusableError: when columns are missing or files can't be read.
        UnknownAdapterError: when there is no such adapter.
        AdapterOptionsError: when its options are wrong.
    """
    told = description.events
    if told.adapter == OURS:
        source = _ours(connection, told, files, rejects=refuse is not None)
    else:
        connection.register("adapted", _adapted(told, files, refuse))
        source = "SELECT *, NULL AS time_text, NULL AS number_text, NULL AS filename FROM adapted"
    return f"SELECT * FROM ({source}) WHERE {_kept(connection, description)}"


def _adapted(
    told: EventFiles, files: Files, refuse: Callable[[Refusal], None] | None
) -> pa.RecordBatchReader:
    """The events that the adapter makes of the files' records, one file after another."""
    read, tally = reader(told.adapter, told.options), Tally()

    def of_file(name: str) -> Iterator[pa.RecordBatch]:
        def reject(number: int, record: object, error: BadRecordError) -> None:
            if refuse:
                is_unreadable = isinstance(record, BadRecordError)
                refuse(Refusal(name, number, error.reason.value, error.detail, is_unreadable))

        return adapted(name, files.format, read, tally, reject)

    batches = chain.from_iterable(map(of_file, files.names))
    return pa.RecordBatchReader.from_batches(EVENTS_SCHEMA, batches)


def _ours(
    connection: duckdb.DuckDBPyConnection, told: EventFiles, files: Files, *, rejects: bool
) -> str:
    """SQL of records that are events of ours, by the names of their columns."""
    names = {one: told.columns.get(one, one) for one in EVENTS_SCHEMA.names}
    source = scan(files, names.values(), rejects=rejects)
    types = described(connection, source)
    needed = [(one.name, names[one.name]) for one in EVENTS_SCHEMA if not one.nullable]
    _require(files, types, [*needed, *told.columns.items()], "events")
    columns, odd = [], ["NULL"]
    for field in EVENTS_SCHEMA:
        theirs = names[field.name]
        column = quoted(theirs) if theirs in types else None
        if field.name == "occurred_at_ms":
            value = _time_ms(column, types.get(theirs, ""), _PER_MS[told.time_unit])
            columns.append(f"{_text(column)} AS time_text")
        else:
            is_number = not pa.types.is_string(field.type)
            value = _number(column) if is_number else _text(column)
            value = f"TRY_CAST({value} AS {_TYPES[field.type]})"
            if column is not None and is_number:
                spelled = f"{text(f'{theirs}: ')} || {_text(column)}"
                odd.append(f"CASE WHEN {value} IS NULL THEN {spelled} END")
        columns.append(f"{value} AS {quoted(field.name)}")
    columns.append(f"coalesce({', '.join(odd)}) AS number_text")
    return f"SELECT {', '.join(columns)}, filename FROM ({source})"


def rejected_lines(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The lines of CSV that were none, once the SQL of `events_sql` was run with `refuse`."""
    if not connection.sql("SHOW TABLES").filter("name = 'reject_errors'").fetchall():
        return []
    lines = """
        SELECT 'line ' || line || ': ' || any_value(csv_line)
        FROM reject_errors GROUP BY file_id, scan_id, line ORDER BY line"""
    return [line for (line,) in connection.execute(lines).fetchall()]


def described(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, str]:
    """The columns of `sql` and their types, as DuckDB names them."""
    return {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {sql}").fetchall()}


@contextmanager
def reading(*files: Files, memory_mib: int = 1024) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB for `files`.

    Args:
        files: What it will scan.
        memory_mib: What it may hold in memory before it writes to temporary files.

    Raises:
        DataUnusableError: when it can't read them, within the block.
    """
    with connect(memory_mib, files) as connection:
        try:
            yield connection
        except duckdb.Error as error:
            raise DataUnusableError(
                f"{files[0].names[0]} or its like can't be read as {files[0].format}: {error}"
            ) from error


def _require(
    files: Files, types: Mapping[str, str], names: Iterable[tuple[str, str]], section: str
) -> None:
    """Raise for a column that the files lack; of JSON lines nobody knows what they may have."""
    for ours, theirs in names:
        if files.format != "jsonl" and theirs not in types:
            raise DataUnusableError(
                f"{files.names[0]} has no column {theirs}; say in source.yaml, as "
                f"`{section}.columns.{ours}`, which it is of {', '.join(sorted(types))}"
            )


def _kept(connection: duckdb.DuckDBPyConnection, description: SourceDescription) -> str:
    """SQL of whether an event stays. A record without a profile, title or time does."""
    left_out = description.exclude
    titles = set(left_out.titles)
    if left_out.kinds:
        rows = catalogue_rows(description).select(["title_id", "kind"]).to_pylist()
        named = description.labels.kinds.named
        excluded = set(left_out.kinds)
        titles |= {row["title_id"] for row in rows if excluded & {*named([row["kind"]])}} - {None}
    conditions = ["true"]
    for column, ids in (("title_id", titles), ("profile_id", set(left_out.profiles))):
        if ids:
            table = pa.table({column: pa.array(sorted(ids), pa.string())})
            connection.from_arrow(table).create(f"left_out_{column}")
            conditions.append(
                f"({column} IS NULL OR {column} NOT IN (SELECT {column} FROM left_out_{column}))"
            )
    if left_out.from_ms is not None:
        conditions.append(f"coalesce(occurred_at_ms >= {left_out.from_ms}, true)")
    if left_out.until_ms is not None:
        conditions.append(f"coalesce(occurred_at_ms < {left_out.until_ms}, true)")
    return " AND ".join(conditions)


def _text(column: str | None) -> str:
    return "NULL" if column is None else f"NULLIF(CAST({column} AS VARCHAR), '')"


def _number(column: str | None) -> str:
    return "NULL" if column is None else f"TRY_CAST({column} AS DOUBLE)"


def _time_ms(column: str | None, kind: str, per_ms: float) -> str:
    """SQL of Unix milliseconds of a number, a text (ISO 8601, or a number) or a timestamp."""
    if column is None:
        return "CAST(NULL AS BIGINT)"
    if kind == "BIGINT" and per_ms == 1:
        return column
    number = f"TRY_CAST(round(TRY_CAST({column} AS DOUBLE) * {per_ms}) AS BIGINT)"
    if kind == "VARCHAR":
        return f"coalesce({number}, epoch_ms(TRY_CAST({column} AS TIMESTAMPTZ)))"
    if kind.startswith(("TIMESTAMP", "DATE")):
        return f"epoch_ms(CAST({column} AS TIMESTAMPTZ))"
    return number


def _day(column: str | None, kind: str) -> str:
    """SQL of days since 1970 of a number of days, a text (ISO 8601, or a number) or a date."""
    if column is None:
        return "NULL"
    if kind.startswith(("TIMESTAMP", "DATE")):
        return f"CAST({column} AS DATE) - {_EPOCH}"
    number = f"TRY_CAST({column} AS INTEGER)"
    if kind == "VARCHAR":
        return f"coalesce({number}, CAST(TRY_CAST({column} AS TIMESTAMPTZ) AS DATE) - {_EPOCH})"
    return number


def _genres(column: str | None, kind: str, separator: str | None) -> str:
    """SQL of a list of genres of a list, the JSON of one, or a text."""
    if column is None:
        return "CAST([] AS VARCHAR[])"
    if kind.endswith("]"):
        listed = f"CAST({column} AS VARCHAR[])"
    else:
        parts = f"string_split({column}, {text(separator)})" if separator else f"[{column}]"
        listed = (
            f"CASE WHEN {column} LIKE '[%' "
            f"THEN coalesce(TRY(CAST(CAST({column} AS JSON) AS VARCHAR[])), {parts}) "
            f"ELSE {parts} END"
        )
    trimmed = f"list_transform({listed}, lambda one: trim(one))"
    return f"coalesce(list_filter({trimmed}, lambda one: one <> ''), CAST([] AS VARCHAR[]))"
