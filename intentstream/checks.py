"""`intentstream data check`: what it prints, and its exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import typer

from fm_intent.data.check_page import page as page_of
from fm_intent.data.check_table import table
from fm_intent.data.checking import check
from fm_intent.data.description import read_description
from stream.exceptions import IntentstreamError
from stream.plain_text import json_text, visible_lines
from stream.steps import console, progress

EXIT_CODES: Final = {"ok": 0, "warning": 1, "error": 2}
"""By the worst that was found. What can't be checked is an error, too."""


def run_check(file: Path, *, as_json: bool, page: Path | None) -> int:
    """Check the data that `file` describes, and tell it; the exit code."""
    try:
        description = read_description(file)
        found = check(description) if as_json else check(description, progress=progress)
    except IntentstreamError as error:
        told = visible_lines(f"{type(error).__name__}: {error}")
        typer.secho(told, fg="red", err=True)
        return EXIT_CODES["error"]
    if as_json:
        sys.stdout.write(json_text(found.as_json()) + "\n")
    else:
        console.print(table(found))
    if page:
        page.write_text(page_of(found))
        typer.echo(f"the page is {page}", err=True)
    return EXIT_CODES[found.level]
