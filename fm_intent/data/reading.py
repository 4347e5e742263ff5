"""A service's catalogue and events, as its `source.yaml` describes them, in our columns.

DuckDB reads the files, so that no table of events is ever held in memory.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, get_args

import duckdb
import pyarrow as pa

from fm_intent.data.contract import CATALOGUE_SCHEMA, EVENTS_SCHEMA
from fm_intent.data.description import CatalogueColumn, EventColumn
from fm_intent.data.files import (
    Files,
    Unusable,
    connect,
    find_files,
    insist,
    listed,
    quoted,
    read_apart,
    scan,
    text,
    unusable,
    without_records,
)
from fm_intent.data.importing import Tally, adapted
from stream.adapters.registry import reader
from stream.exceptions import BadRecordError, DataUnusableError, NoRecordError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from fm_intent.data.description import CatalogueFiles, EventFiles, SourceDescription

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
    broken: NoRecordError | None
    """What stands there, where it is no record at all, as a line that was cut short; else the
    adapter refused it."""

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


_ROWS: Final = pa.schema(
    [field.with_nullable(True) for field in CATALOGUE_SCHEMA]
    + [pa.field(name, pa.string()) for name in ("day_text", "length_text")]
)
LONGEST_S: Final = 1_000_000
"""Of what a title may last, as of what events may say."""

_SAMPLE: Final = 100
_AT_MOST: Final = 1_000
"""Lines that are none and are told one by one."""


@dataclass(slots=True)
class Sought:
    """Columns that files have to have, and what was found in them.

    Attributes:
        section: Of `source.yaml`, that names them.
        names: Ours → theirs, of those that are needed and those that the section names.
        found: Theirs that are there; of JSON lines, those that some record has.
        seen: Theirs that could be meant.
    """

    section: str
    names: dict[str, str]
    found: set[str] = dataclasses.field(default_factory=set)
    seen: set[str] = dataclasses.field(default_factory=set)
    _has_records: bool = False

    @classmethod
    def of_events(cls, told: EventFiles) -> Self:
        """Those of events that are ours already."""
        needed = (one.name for one in EVENTS_SCHEMA if not one.nullable)
        return cls("events", {one: told.columns.get(one, one) for one in (*needed, *told.columns)})

    @classmethod
    def of_catalogue(cls, told: CatalogueFiles) -> Self:
        """Those of a catalogue."""
        sought = ("title_id", *told.columns)
        return cls("catalogue", {one: told.columns.get(one, one) for one in sought})

    def look(self, connection: duckdb.DuckDBPyConnection, files: Files) -> None:
        """Look into files of one format."""
        source = scan(files, self.names.values())
        if files.format != "jsonl":
            self.found |= described(connection, source).keys() - {"filename"}
            self._has_records = True  # or a head, at least
            self.seen |= self.found
            return
        for name in {*self.names.values()} - self.found:
            has = f"SELECT 1 FROM ({source}) WHERE {quoted(name)} IS NOT NULL LIMIT 1"
            if connection.execute(has).fetchone():
                self.found.add(name)
        if {*self.names.values()} - self.found:
            objects = f"read_ndjson_objects({listed(files.names)}, ignore_errors = true)"
            some = f"SELECT json FROM {objects} LIMIT {_SAMPLE}"
            keys = f"SELECT DISTINCT unnest(json_keys(json)) FROM ({some})"
            self.seen |= {name for (name,) in connection.execute(keys).fetchall()}
            self._has_records |= bool(self.seen)

    def lacking(self) -> list[Unusable]:
        """Those that no file has, all at once."""
        missing = [
            f"{self.section}.columns.{ours}: {theirs}"
            for ours, theirs in self.names.items()
            if theirs not in self.found
        ]
        if not missing or not self._has_records:
            return []
        named, there = ", ".join(missing), ", ".join(sorted(self.seen)[:_SAMPLE])
        told = (
            f"no file has these columns: {named}; say in source.yaml, by these keys, which they "
            f"are of {there}"
        )
        example = {"missing": named, "there": there}
        return [Unusable("column_missing", example, told, len(missing))]


class CatalogueRows(NamedTuple):
    """What there is in the files of a catalogue."""

    rows: pa.Table
    """Every row, as the source spells it, with all that is wrong in it: the columns of
    `CATALOGUE_SCHEMA`, of which an id may be null, and `day_text` and `length_text`: what stands
    there, by its column's name, and can't be read."""
    unusable: list[Unusable]
    rejected: tuple[int, list[dict[str, Any]]]
    """As of `rejected_lines`."""


def read_catalogue_files(description: SourceDescription) -> pa.Table:
    """The titles, in `CATALOGUE_SCHEMA` and the files' order, as `titles_of` tells them.

    Raises:
        DataUnusableError: when files or columns are missing or can't be read.
    """
    found = catalogue_rows(description)
    insist(found.unusable)
    return titles_of(description, found.rows)


def titles_of(description: SourceDescription, titles: pa.Table) -> pa.Table:
    """The titles of a catalogue's rows, in `CATALOGUE_SCHEMA`.

    Kinds and genres are those of the source after aliases, each once a title, without those that
    the labels' rules exclude. A title without a name is named by its id, and a length that none can
    be is unknown. Left out are rows without an id, all but the first of an id, and what `exclude`
    names.
    """
    titles = titles.select(CATALOGUE_SCHEMA.names)
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
    lengths = [s if s and 0 < s <= LONGEST_S else None for s in titles["duration_s"].to_pylist()]
    titles = titles.set_column(5, "duration_s", pa.array(lengths, pa.float32()))
    return titles.take(pa.array(kept, pa.int64())).cast(CATALOGUE_SCHEMA)


def catalogue_rows(description: SourceDescription) -> CatalogueRows:
    """Every row of the catalogue's files, and what of these can't be used.

    Raises:
        DataUnusableError: when there are no files, or files of several formats.
    """
    told = description.catalogue
    files = find_files(told.path, told.format)
    sought = Sought.of_catalogue(told)
    tables = [_ROWS.empty_table()]
    with connect(files=(files,)) as connection:
        connection.execute("SET preserve_insertion_order = true")

        def read(some: Files) -> None:
            sought.look(connection, some)
            rows = connection.sql(_catalogue_sql(connection, told, some))
            tables.append(rows.to_arrow_table().cast(_ROWS))

        found = list(read_apart(files, read))
        found += empty(connection, files, {one.example["filename"] for one in found})
        return CatalogueRows(
            pa.concat_tables(tables), found + sought.lacking(), rejected_lines(connection)
        )


def _catalogue_sql(
    connection: duckdb.DuckDBPyConnection, told: CatalogueFiles, files: Files
) -> str:
    names = {one: told.columns.get(one, one) for one in get_args(CatalogueColumn)}
    source = scan(files, names.values(), rejects=True)
    types = described(connection, source)
    has = {one: quoted(theirs) for one, theirs in names.items() if theirs in types}
    title_id, name, kind = (_text(has.get(one)) for one in ("title_id", "name", "kind"))
    genres = _genres(has.get("genres"), types.get(names["genres"], ""), told.genres_separator)
    day = _day(has.get("release_day"), types.get(names["release_day"], ""), told.date_format)
    year = f"TRY_CAST(left({_text(has.get('release_year'))}, 4) AS INTEGER)"
    first = f"TRY(make_date({year}, 1, 1)) - {_EPOCH}"
    seconds, minutes = (_number(has.get(one)) for one in ("duration_s", "duration_min"))

    def odd(**values: str) -> str:
        cases = (_odd(names[one], has[one], value) for one, value in values.items() if one in has)
        return f"coalesce({', '.join([*cases, 'NULL'])})"

    return f"""
        SELECT {title_id} AS title_id, coalesce({name}, {title_id}) AS name, {kind} AS kind,
            {genres} AS genres, CAST(coalesce({day}, {first}) AS INTEGER) AS release_day,
            CAST(coalesce({seconds}, 60 * {minutes}) AS FLOAT) AS duration_s,
            {odd(release_day=day, release_year=first)} AS day_text,
            {odd(duration_s=seconds, duration_min=minutes)} AS length_text
        FROM ({source})"""


def _odd(name: str, column: str, value: str) -> str:
    """SQL of what a column has where its value can't be read, by its name; else null."""
    return f"CASE WHEN {value} IS NULL THEN {text(f'{name}: ')} || {_text(column)} END"


def empty(
    connection: duckdb.DuckDBPyConnection, files: Files, known: Container[str]
) -> Iterator[Unusable]:
    """The files without a record, but for those that are known to have one, or to be none."""
    for name in files.names:
        if name not in known:
            source = scan(dataclasses.replace(files, names=(name,)), ("title_id",))
            if not connection.execute(f"SELECT 1 FROM ({source}) LIMIT 1").fetchone():
                yield without_records(name)


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
        if description.events.adapter == OURS:
            sought = Sought.of_events(description.events)
            sought.look(connection, files)
            insist(sought.lacking())
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
    """SQL of the records of the events' files, in the columns of `EVENTS_SCHEMA`.

    What `exclude` names is left out. Arguments, errors and columns are as of `records_sql`.
    """
    every = records_sql(connection, description.events, files, refuse)
    return f"SELECT * FROM ({every}) WHERE {kept(connection, description)}"


def records_sql(
    connection: duckdb.DuckDBPyConnection,
    told: EventFiles,
    files: Files,
    refuse: Callable[[Refusal], None] | None = None,
    skip: Callable[[Unusable], None] | None = None,
) -> str:
    """SQL of every record of the events' files, in the columns of `EVENTS_SCHEMA`.

    Three more say where it comes from: `filename`, `time_text`, the time as the source spells it,
    and `number_text`, the first number that can't be read, by its column's name, null where all
    can. What can't be read as a column's type, or isn't there, is null.

    Args:
        connection: That will run it; it gets the tables that the SQL needs.
        told: How they are read.
        files: Of events.
        refuse: Is told of each record that can't be read or that the adapter refuses; then DuckDB's
            table `reject_errors` has the lines of CSV that are none.
        skip: Is told of each file that can't be read to its end, or is empty, where an adapter
            reads it; None: such a file ends it.

    Raises:
        DataUnusableError: when files can't be read.
        UnknownAdapterError: when there is no such adapter.
        AdapterOptionsError: when its options are wrong.
    """
    if told.adapter == OURS:
        return _ours(connection, told, files, rejects=refuse is not None)
    connection.register("adapted", _adapted(told, files, refuse, skip))
    return "SELECT *, NULL AS time_text, NULL AS number_text, NULL AS filename FROM adapted"


def _adapted(
    told: EventFiles,
    files: Files,
    refuse: Callable[[Refusal], None] | None,
    skip: Callable[[Unusable], None] | None,
) -> pa.RecordBatchReader:
    """The events that the adapter makes of the files' records, one file after another."""
    read, tally = reader(told.adapter, told.options), Tally()

    def of_file(name: str) -> Iterator[pa.RecordBatch]:
        def reject(number: int, record: object, error: BadRecordError) -> None:
            if refuse:
                broken = record if isinstance(record, NoRecordError) else None
                refuse(Refusal(name, number, error.reason.value, error.detail, broken))

        before = tally.records
        try:
            yield from adapted(name, files.format, read, tally, reject)
        except DataUnusableError as error:
            if skip is None:
                raise
            skip(unusable(name, error))
        else:
            if skip and tally.records == before:
                skip(without_records(name))

    batches = chain.from_iterable(map(of_file, files.names))
    return pa.RecordBatchReader.from_batches(EVENTS_SCHEMA, batches)


def _ours(
    connection: duckdb.DuckDBPyConnection, told: EventFiles, files: Files, *, rejects: bool
) -> str:
    """SQL of records that are events of ours, by the names of their columns."""
    names = {one: told.columns.get(one, one) for one in EVENTS_SCHEMA.names}
    source = scan(files, names.values(), rejects=rejects)
    types = described(connection, source)
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
                odd.append(_odd(theirs, column, value))
        columns.append(f"{value} AS {quoted(field.name)}")
    columns.append(f"coalesce({', '.join(odd)}) AS number_text")
    return f"SELECT {', '.join(columns)}, filename FROM ({source})"


def rejected_lines(connection: duckdb.DuckDBPyConnection) -> tuple[int, list[dict[str, Any]]]:
    """How many lines of CSV were none, once SQL of here was run, and some of them.

    Each with `filename`, `line`, `text` and, as `detail`, what is wrong with it.
    """
    there = "SELECT 1 FROM duckdb_tables() WHERE table_name = 'reject_errors'"
    if not connection.execute(there).fetchone():
        return 0, []
    lines = """
        SELECT file_path AS filename, line, any_value(csv_line) AS text,
            any_value(error_message) AS detail
        FROM reject_errors JOIN reject_scans USING (scan_id, file_id) GROUP BY 1, 2"""
    (count,) = connection.execute(f"SELECT count(*) FROM ({lines})").fetchall()[0]
    some = connection.execute(f"{lines} ORDER BY 1, 2 LIMIT {_AT_MOST}")
    names = [column[0] for column in some.description]
    return count, [dict(zip(names, row, strict=True)) for row in some.fetchall()]


def line_of(filename: str, broken: NoRecordError) -> dict[str, Any]:
    """A line that is no record, as `rejected_lines` has those of CSV."""
    told = {"filename": filename, "line": broken.line, "text": broken.text}
    return told | {"detail": broken.detail}


def record_fields(told: EventFiles) -> tuple[str, ...]:
    """Theirs, of which a record of events of ours has one at least."""
    ours: tuple[EventColumn, ...] = (
        "event_id",
        "profile_id",
        "event_type",
        "occurred_at_ms",
        "title_id",
    )
    return tuple(told.columns.get(one, one) for one in ours)


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


def kept(connection: duckdb.DuckDBPyConnection, description: SourceDescription) -> str:
    """SQL of whether an event stays. A record without a profile, title or time does.

    Raises:
        DataUnusableError: when the catalogue, whose kinds are left out, can't be read.
    """
    left_out = description.exclude
    titles = set(left_out.titles)
    if left_out.kinds:
        rows = catalogue_rows(description).rows.select(["title_id", "kind"]).to_pylist()
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


def _day(column: str | None, kind: str, form: str | None) -> str:
    """SQL of days since 1970 of a number of days, a text or a date.

    A text is a number, or a date in the form that is told, ISO 8601 where none is.
    """
    if column is None:
        return "NULL"
    if kind.startswith(("TIMESTAMP", "DATE")):
        return f"CAST({column} AS DATE) - {_EPOCH}"
    number = f"TRY_CAST({column} AS INTEGER)"
    if kind == "VARCHAR":
        time = f"TRY_CAST({column} AS TIMESTAMPTZ)"
        if form:
            time = f"try_strptime({column}, {text(form)})"
        return f"coalesce({number}, CAST({time} AS DATE) - {_EPOCH})"
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
