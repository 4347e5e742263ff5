"""Records of files as they are: objects of JSON, rows of CSV and Parquet, one after another.

No file is held in memory whole, but a document of JSON that holds a list of records somewhere
within, such as the answer of an API.
"""

from __future__ import annotations

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

from stream.exceptions import BadRecordError, DataUnusableError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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
        A record, or a `BadRecordError`.

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
    if files.columns:
        # Whoever writes no header doesn't quote either.
        rows = csv.reader(lines, delimiter=files.delimiter, quoting=csv.QUOTE_NONE)
        header = list(files.columns)
    else:
        rows = csv.reader(lines, delimiter=max(_DELIMITERS, key=first.count))
        header = next(rows, [])
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield BadRecordError(Reason.WRONG_TYPE, f"this is no line of CSV: {error}")
            continue
        if row is None:
            return
        if len(row) == len(header):
            yield dict(zip(header, row, strict=True))
        elif row:
            yield BadRecordError(
                Reason.WRONG_TYPE, f"a line has {len(row)} fields where {len(header)} must be"
            )


def _json(file: Any, files: Files) -> Iterator[object]:
    buffered = io.BufferedReader(file, _CHUNK) if not isinstance(file, io.BufferedReader) else file
    start = _blank_skipped(buffered)
    if start == b"[":
        yield from _array(io.TextIOWrapper(buffered, "utf-8", errors="surrogateescape"))
        return
    first = buffered.readline()
    document = _parsed(first)
    rest: Iterable[bytes] = buffered
    if isinstance(document, BadRecordError) and start == b"{":
        # An object over several lines, if the whole of the file is one.
        begun = first + buffered.read(_LARGEST_DOCUMENT)
        document = _parsed(begun)
        rest = () if isinstance(document, dict) else chain(io.BytesIO(begun), buffered)
    if isinstance(document, BadRecordError) and rest is not buffered:
        yield from _lines(rest)
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
    yield from _lines(rest)


def _lines(lines: Iterable[bytes]) -> Iterator[object]:
    yield from (_parsed(line) for line in lines if line.strip())


def _blank_skipped(file: io.BufferedReader) -> bytes:
    """The first byte that is neither blank nor of a byte-order mark; it stays to be read."""
    while head := file.peek(1)[:1]:
        if head not in b" \t\r\n\xef\xbb\xbf":
            return head
        file.read(1)
    return b""


def _parsed(line: bytes) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return BadRecordError(Reason.NOT_JSON, str(error))


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
                yield BadRecordError(
                    Reason.NOT_JSON, f"the array breaks off; what follows isn't read: {error}"
                )
                return
            text, place = text[place:] + more, 0
            continue
        yield item
        if place > _CHUNK:
            text, place = text[place:], 0
