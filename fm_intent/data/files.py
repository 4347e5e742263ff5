"""Files of records, wherever they lie, as something that DuckDB scans."""

from __future__ import annotations

import csv
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import duckdb
import fsspec

from stream.exceptions import DataUnusableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fm_intent.data.description import Format

_FORMATS: Final = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}
_COMPRESSED: Final = (".gz", ".zst")
_DELIMITERS: Final = "\t;|,"
_LONGEST_HEAD: Final = 1 << 20
_LONGEST_REASON: Final = 400


@dataclass(frozen=True, slots=True)
class Files:
    """Files of one format, by names that DuckDB and fsspec open."""

    format: str
    """`parquet`, `jsonl` or `csv`."""
    names: tuple[str, ...]
    """In order."""
    filesystems: tuple[Any, ...] = ()
    """fsspec's, of those that aren't local."""


class Unusable(NamedTuple):
    """What of a source's files can't be used, by the kind of fault that it is."""

    fault: str
    """As `fm_intent.data.faults` names it."""
    example: dict[str, Any]
    """What that fault shows."""
    told: str
    times: int = 1
    """How many columns it names."""


def unusable(name: str, error: Exception) -> Unusable:
    """That a file can't be read, and why; one without a byte has no record, and that is all."""
    filesystem, inner = fsspec.core.url_to_fs(name)
    with suppress(OSError):
        if filesystem.size(inner) == 0:
            return without_records(name, "it has no byte")
    reason, _, _ = str(error).partition("\n\nLINE ")  # of DuckDB's query
    reason = reason.removeprefix(f"{name} can't be read").lstrip(": ").replace("\n", " ")
    if "state machine" in reason:  # what DuckDB says of a CSV that ends its lines in two ways
        reason = "the ends of its lines are mixed, some \\r\\n and some \\n; save it with one"
    reason = reason[:_LONGEST_REASON]
    told = f"{name} can't be read: {reason}"
    return Unusable("file_unreadable", {"filename": name, "reason": reason}, told)


def without_records(name: str, reason: str = "it has no record") -> Unusable:
    """That there is no record in a file."""
    return Unusable("file_empty", {"filename": name, "reason": reason}, f"{name}: {reason}")


def insist(found: Iterable[Unusable]) -> None:
    """Raise for what can't be used, all of it at once; that a file is empty does no harm.

    Raises:
        DataUnusableError: when there is any.
    """
    if told := [one.told for one in found if one.fault != "file_empty"]:
        raise DataUnusableError("\n".join(told))


def read_apart(files: Files, read: Callable[[Files], None]) -> Iterator[Unusable]:
    """Have `read` read all files at once, or parts of them where one of them can't be read.

    Args:
        files: Of one format.
        read: Called with files until it has read each that can be; what it did before it failed
            must not count.

    Yields:
        Files that can't be read.
    """
    try:
        if files.names:
            read(files)
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, DataUnusableError) as error:
        if len(files.names) == 1:
            yield unusable(files.names[0], error)
            return
        middle = len(files.names) // 2
        for names in (files.names[:middle], files.names[middle:]):
            yield from read_apart(replace(files, names=names), read)


def connect(memory_mib: int = 1024, files: Iterable[Files] = ()) -> duckdb.DuckDBPyConnection:
    """An embedded DuckDB that knows times as UTC, and the file systems of `files`.

    Args:
        memory_mib: What it may hold in memory before it writes to temporary files.
        files: What it will scan.
    """
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET memory_limit = '{memory_mib}MiB'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    for one in files:
        for filesystem in one.filesystems:
            connection.register_filesystem(filesystem)
    return connection


def find_files(paths: Sequence[str], format: Format = "auto") -> Files:  # noqa: A002
    """The files that `paths` name.

    Of folders, those below them whose names say their format (`.parquet`, `.jsonl`, `.ndjson`,
    `.json`, `.csv`, `.tsv`, and these with `.gz` or `.zst`); names that begin with `_` or `.` are
    passed over, as writers of tables mean it.

    Args:
        paths: Files, folders, globs or URLs.
        format: `auto` tells it by the names.

    Raises:
        DataUnusableError: when a path names nothing, or the format can't be told.
    """
    names: list[str] = []
    filesystems = {}
    for path in paths:
        found, filesystem = _found(path, format)
        if not found:
            raise DataUnusableError(
                f"no files at {path}; check the path in source.yaml, and that the names of files "
                f"in a folder end in one of {', '.join(_FORMATS)}"
            )
        names += found
        if filesystem is not None:
            filesystems[type(filesystem)] = filesystem
    formats = {_format(name) for name in names} if format == "auto" else {format}
    if None in formats:
        raise DataUnusableError(
            f"the name of {next(name for name in names if _format(name) is None)} doesn't say its "
            "format; set `format` in source.yaml to parquet, jsonl or csv"
        )
    if len(formats) > 1:
        some = {_format(name): name for name in names}
        raise DataUnusableError(
            f"{' and '.join(some.values())} are not of one format; a source is of one, so name the "
            "files of one of them, as by the glob `events/*.parquet`, and convert the others"
        )
    return Files(str(formats.pop()), tuple(dict.fromkeys(names)), tuple(filesystems.values()))


def _found(path: str, format: str) -> tuple[list[str], Any]:  # noqa: A002
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
        is_glob = any(sign in inner for sign in "*?[")
        if not is_glob and not filesystem.isdir(inner):
            found = [inner] if filesystem.exists(inner) else []
        else:
            everything = filesystem.glob(inner) if is_glob else filesystem.find(inner)
            found = [
                name
                for name in sorted(everything)
                if _is_data(PurePosixPath(name), PurePosixPath(inner))
                and (_format(name) or (is_glob and format != "auto"))
                and filesystem.isfile(name)
            ]
    except (ImportError, ValueError, OSError) as error:
        raise DataUnusableError(f"{path} can't be looked up: {error}") from error
    if "file" in filesystem.protocol:
        return found, None
    return [filesystem.unstrip_protocol(name) for name in found], filesystem


def _is_data(name: PurePosixPath, below: PurePosixPath) -> bool:
    parts = name.parts[len(below.parts) :] if name.is_relative_to(below) else name.parts[-1:]
    return not any(part.startswith(("_", ".")) for part in parts)


def _format(name: str) -> str | None:
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return _FORMATS.get(PurePosixPath(name).suffix.lower())


def scan(files: Files, columns: Iterable[str], *, rejects: bool = False) -> str:
    """SQL of the records in `files`: what they have of `columns`, and `filename`.

    Of JSON lines and CSV every column is text (an array in JSON is its JSON); a line that is none
    is a record of nulls in JSON lines, and is passed over in CSV.

    Args:
        files: What to read.
        columns: Names of theirs.
        rejects: Whether lines that are passed over are told in DuckDB's table `reject_errors`.

    Raises:
        DataUnusableError: when a file can't be read.
    """
    wanted = list(dict.fromkeys(columns))
    if files.format == "parquet":
        return (
            f"SELECT * FROM read_parquet({listed(files.names)}, union_by_name = true, "
            "filename = true, hive_partitioning = false)"
        )
    if files.format == "jsonl":
        types = ", ".join(f"{text(name)}: 'JSON'" for name in wanted)
        texts = ", ".join(f"{quoted(name)} ->> '$' AS {quoted(name)}" for name in wanted)
        return (
            f"SELECT {texts}, filename FROM read_json({listed(files.names)}, "
            f"format = 'newline_delimited', columns = {{{types}}}, ignore_errors = true, "
            "filename = true, maximum_object_size = 16777216)"
        )
    by_header: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for name in files.names:
        by_header[_header(name)].append(name)
    return " UNION ALL BY NAME ".join(
        _scan_csv(names, delimiter, header, "store_rejects" if rejects else "ignore_errors")
        for (delimiter, header), names in by_header.items()
    )


def _scan_csv(names: Iterable[str], delimiter: str, header: Iterable[str], lenient: str) -> str:
    columns = ", ".join(f"{text(one)}: 'VARCHAR'" for one in header)
    return (
        f"SELECT * FROM read_csv({listed(names)}, auto_detect = false, header = true, "
        f"delim = {text(delimiter)}, quote = '\"', escape = '\"', filename = true, "
        f"columns = {{{columns}}}, {lenient} = true)"
    )


def _header(name: str) -> tuple[str, tuple[str, ...]]:
    """Delimiter and names of the columns of a CSV file."""
    try:
        with fsspec.open(name, "rb", compression="infer") as file:
            # The head alone is to be UTF-8: of lines that aren't, each is told.
            first = b"".join(file.readline(_LONGEST_HEAD).splitlines()[:1]).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataUnusableError(f"{name} can't be read: {error}") from error
    delimiter = max(_DELIMITERS, key=first.count)
    names = tuple(next(csv.reader([first], delimiter=delimiter), ()))
    if not names or len(set(names)) < len(names):
        raise DataUnusableError(
            f"{name} needs a first line with the names of its columns, each once"
        )
    return delimiter, names


def text(value: str) -> str:
    """`value` as a text in SQL."""
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """`name` as a column in SQL."""
    return '"' + name.replace('"', '""') + '"'


def listed(values: Iterable[str]) -> str:
    """A list of texts in SQL."""
    return f"[{', '.join(map(text, values))}]"
