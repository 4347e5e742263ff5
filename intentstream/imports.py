"""What `intentstream data import` does and tells."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from rich.table import Column, Table

from fm_intent.data.importing import REJECTED_FILE, Imported, import_files
from stream.exceptions import AdapterOptionsError
from stream.plain_text import PlainConsole, json_text, visible
from stream.steps import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from fm_intent.data.description import Format


def run_import(
    files: Sequence[str],
    into: Path,
    adapter: str,
    options: Iterable[str],
    format: Format,  # noqa: A002
    *,
    as_json: bool,
) -> list[Imported]:
    """Import files and print what became of each; returns the same.

    Args:
        files: Files, folders, globs or URLs.
        into: The folder of canonical events.
        adapter: Name of the adapter.
        options: KEY=VALUE of it.
        format: Of the files.
        as_json: Print JSON, one line a file, instead of a bar and a table.

    Raises:
        AdapterOptionsError: when an option is unknown, missing or wrong.
        UnknownAdapterError: when there is no such adapter.
        DataUnusableError: when a path names nothing, or a file can't be read; the others are
            imported.
    """
    importing = partial(
        import_files, files, into, adapter=adapter, options=_options(options), format=format
    )
    done = []
    try:
        for one in importing() if as_json else importing(progress=progress):
            done.append(one)
            if as_json:
                print(json_text(asdict(one)))
    finally:  # also where some files can't be read
        if not as_json:
            _print(done, into)
    return done


def _options(given: Iterable[str]) -> dict[str, Any]:
    options = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign:
            raise AdapterOptionsError(f"--option {one}: write it as KEY=VALUE")
        try:
            options[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            options[name] = value
    return options


def _print(done: Iterable[Imported], into: Path) -> None:
    table = Table(
        Column("file", overflow="fold"), "records", "events", "days", "passed over", "rejected"
    )
    for one in done:
        name = one.file.rsplit("/", 1)[-1]
        table.add_row(
            visible(f"{name} (was there)" if one.was_there else name),
            f"{one.records:,}",
            f"{one.events:,}",
            f"{one.days:,}",
            visible(_counts(one.passed_over)),
            visible(_counts(one.rejected)),
        )
    PlainConsole().print(table)
    if any(one.rejected for one in done):
        print(visible(f"rejected records and their reasons: {into / REJECTED_FILE}"))


def _counts(counts: Mapping[str, int]) -> str:
    most_first = sorted(counts.items(), key=lambda one: -one[1])
    return ", ".join(f"{count:,} {why}" for why, count in most_first) or "0"
