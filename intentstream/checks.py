"""`intentstream data init` and `data check`: what they print, and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from fm_intent.data.check_page import page as page_of
from fm_intent.data.check_table import table
from fm_intent.data.checking import check
from fm_intent.data.description import parse_description, read_description
from fm_intent.data.guessing import guess
from stream.exceptions import DescriptionError, IntentstreamError
from stream.plain_text import json_text, visible_lines
from stream.steps import console, progress

EXIT_CODES: Final = {"ok": 0, "warning": 1, "error": 2}
"""By the worst that was found. What can't be checked is an error, too."""


def run_init(paths: Sequence[str], into: Path, *, force: bool) -> None:
    """Write a description that is guessed from files, and tell what was guessed.

    Raises:
        DescriptionError: when there is one already.
        DataUnusableError: when a path names nothing, or nothing in the files can be read.
    """
    if into.exists() and not force:
        raise DescriptionError(f"{into} is there already; --force overwrites it")
    guessed = guess(paths, into)
    parse_description(guessed.text, str(into))
    into.write_text(guessed.text)
    console.print(f"{into.absolute()} is written. Guessed:")
    for line in guessed.found:
        console.print(f"  {line}")
    if guessed.open:
        console.print("To be told by hand:")
    for line in guessed.open:
        console.print(f"  {line}")
    console.print(f"Look it over, then run `intentstream data check {into}`.")


def run_check(file: Path, *, as_json: bool, page: Path | None) -> int:
    """Check the data that `file` describes, and tell it; the exit code."""
    try:
        description = read_description(file)
        found = check(description) if as_json else check(description, progress=progress)
    except IntentstreamError as error:
        told = visible_lines(f"{type(error).__name__}: {error}")
        typer.secho(told, fg="red", err=True)
        if as_json:
            complaints = {"error": type(error).__name__, "complaints": str(error).splitlines()}
            sys.stdout.write(json_text({"level": "error", **complaints}) + "\n")
        return EXIT_CODES["error"]
    if as_json:
        sys.stdout.write(json_text(found.as_json()) + "\n")
    else:
        console.print(table(found))
    if page:
        page.write_text(page_of(found))
        typer.echo(f"the page is {page.absolute()}", err=True)
    return EXIT_CODES[found.level]
