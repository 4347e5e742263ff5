"""Records of files as they are: objects of JSON, rows of CSV and Parquet, one after another.

No file is held in memory whole, but a document of JSON that holds a list of records somewhere
within, such as the answer of an API.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import fsspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.compression import compr
from fsspec.utils import infer_compression

from stream.exceptions import DataUnusableError, NoRecordError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from stream.adapters.adapter import Files

_CHUNK: Final = 1 << 20
_LONGEST_RECORD: Final = 16 << 20
_LARGEST_DOCUMENT: Final = 256 << 20
_ROWS: Final = 8192
_DELIMITERS: Final = "\t;|,"
_EVERY: Final = 4096
_LONGEST_FIELD: Final = 1 << 20

csv.field_size_limit(_LONGEST_FIELD)


def records(
    name: str,
    format: str,  # noqa: A002
    files: Files,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[object]:
    """The records of a file, in its order; in place of one that can't be read, why.

    Args:
        name: Of the file, local or a URL that fsspec opens; `.gz`, `.zst` and the like are
            unpacked.
        format: `parquet`, `jsonl` (also arrays and documents of JSON) or `csv`.
        files: How files hold records of this kind.
        advance: Told now and then how many bytes of the file have been read.

    Yields:
        A record, or a `NoRecordError`.

    Raises:
        DataUnusableError: when the file can't be opened, or isn't of the format.
    """
    read = {"parquet": _parquet, "jsonl": _json, "csv": _csv}[format]
    try:
        filesystem, inner = fsspec.core.url_to_fs(name)
        with filesystem.open(inner, "rb") as raw:
            packed = None if format == "parquet" else infer_compression(name)
            file = compr[packed](raw, mode="rb") if packed else raw
            for count, record in enumerate(read(file, files), 1):
                if count % _EVERY == 0:
                    advance(raw.tell())
                yield record
    except (OSError, EOFError, ImportError, ValueError, pa.ArrowException) as error:
        raise DataUnusableError(f"{name} can't be read as {format}: {error}") from error


def _parquet(file: Any, _: Files) -> Iterator[object]:
    for batch in pq.ParquetFile(file).iter_batches(_ROWS):
        yield from batch.to_pylist()


def _csv(file: Any, files: Files) -> Iterator[object]:
    # What is no UTF-8 is refused with its record, as surrogates are none either.
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    first = text.readline()
    lines = chain([first] if first else [], text)
    delimiter = files.delimiter if files.columns else max(_DELIMITERS, key=first.count)
    if files.columns:
        # Whoever writes no header doesn't quote either.
        rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        header = list(files.columns)
    else:
        rows = csv.reader(lines, delimiter=delimiter)
        header = next(rows, [])
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            detail = f"this is no line of CSV: {error}"
            yield NoRecordError(Reason.WRONG_TYPE, detail, rows.line_num)
            continue
        if row is None:
            return
        if len(row) == len(header):
            yield dict(zip(header, row, strict=True))
        elif row:
            detail = f"it has {len(row)} fields where {len(header)} must be"
            joined = delimiter.join(row)
            yield NoRecordError(Reason.WRONG_TYPE, detail, rows.line_num, joined)


def _json(file: Any, files: Files) -> Iterator[object]:
    buffered = io.BufferedReader(file, _CHUNK) if not isinstance(file, io.BufferedReader) else file
    start, number = _blank_skipped(buffered)
    if start == b"[":
        yield from _array(io.TextIOWrapper(buffered, "utf-8", errors="surrogateescape"))
        return
    first = buffered.readline()
    document = _parsed(first, number)
    rest: Iterable[bytes] = buffered
    if isinstance(document, NoRecordError) and start == b"{":
        # An object over several lines, if the whole of the file is one.
        begun = first + buffered.read(_LARGEST_DOCUMENT)
        document = _parsed(begun, number)
        rest = () if isinstance(document, dict) else chain(io.BytesIO(begun), buffered)
    if isinstance(document, NoRecordError) and rest is not buffered:
        yield from _lines(rest, number)
        return
    for path in files.within:
        found: Any = document
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        if isinstance(found, list):
            yield from found
            return
    if first.strip():
        yield document
    yield from _lines(rest, number + 1)


def lines_without(name: str, fields: Collection[str]) -> Iterator[NoRecordError]:
    """The lines of a file of JSON lines that are no object with one of these fields."""
    with fsspec.open(name, "rb", compression="infer") as file:
        for number, line in enumerate(file, 1):
            found = _parsed(line.removeprefix(codecs.BOM_UTF8), number) if line.strip() else None
            if isinstance(found, NoRecordError):
                yield found
            elif line.strip() and not (
                isinstance(found, dict) and any(found.get(one) is not None for one in fields)
            ):
                detail = f"it has none of the fields {', '.join(fields)}"
                yield NoRecordError(Reason.NOT_AN_OBJECT, detail, number, _shown(line))


def _lines(lines: Iterable[bytes], number: int) -> Iterator[object]:
    yield from (_parsed(line, at) for at, line in enumerate(lines, number) if line.strip())


def _blank_skipped(file: io.BufferedReader) -> tuple[bytes, int]:
    """The first byte that is neither blank nor of a byte-order mark, and its line.

    It stays to be read.
    """
    line = 1
    while head := file.peek(1)[:1]:
        if head not in b" \t\r\n\xef\xbb\xbf":
            return head, line
        line += file.read(1) == b"\n"
    return b"", line


def _parsed(line: bytes, number: int) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return NoRecordError(Reason.NOT_JSON, str(error), number, _shown(line))


def _shown(line: bytes) -> str:
    return line[:_LONGEST_FIELD].decode(errors="replace").rstrip("\r\n")


def _array(file: io.TextIOWrapper) -> Iterator[object]:
    """The items of an array, read piece by piece."""
    decoder = json.JSONDecoder()
    text, place = file.read(_CHUNK), 1  # behind the bracket
    while True:
        while text[place : place + 1] in (" ", "\t", "\r", "\n", ","):
            place += 1
        if place < len(text) and text[place] == "]":
            return
        try:
            item, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            more = file.read(_CHUNK) if len(text) - place < _LONGEST_RECORD else ""
            if not more:
                detail = f"the array breaks off; what follows isn't read: {error}"
                rest = text[place : place + _LONGEST_FIELD]
                yield NoRecordError(Reason.NOT_JSON, detail, text=rest)
                return
            text, place = text[place:] + more, 0
            continue
        yield item
        if place > _CHUNK:
            text, place = text[place:], 0
