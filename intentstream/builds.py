"""The command `intentstream data build`: which data it builds, and the table that it prints."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from rich.table import Table

from fm_intent.data.building import Built, build
from fm_intent.data.contract import CATALOGUE_FILE
from fm_intent.data.event_files import event_days
from intentstream.paths import LOCAL
from stream.exceptions import DataUnusableError
from stream.plain_text import PlainConsole

if TYPE_CHECKING:
    from fm_intent.data.engines import EngineName

DESCRIPTION_FILE = "source.yaml"


def run_build(source: str, engine: EngineName) -> Built:
    """Build the histories of a source, and tell what was done.

    Args:
        source: a `source.yaml`, a source that comes along, or the name of what is prepared already.
        engine: what runs the queries.

    Raises:
        DescriptionError: when the file isn't a description.
        UnknownSourceError: when there is no source of that name.
        DataUnusableError: when there are no events, or some that can't be joined.
    """
    began = time.monotonic()
    built = build(_prepared(source), engine)
    table = Table("", "", title=f"Histories of {source}", show_header=False)
    table.add_row("days joined", f"{built.days:,}")
    table.add_row("days that were joined before", f"{built.kept_days:,}")
    table.add_row("events of the days joined", f"{built.events:,}")
    table.add_row("profiles", f"{built.profiles:,}")
    table.add_row("interactions", f"{built.interactions:,}")
    table.add_row("seconds", f"{time.monotonic() - began:.1f}")
    console = PlainConsole()
    console.print(table)
    console.print(f"in {built.folder}", soft_wrap=True)
    return built


def _prepared(source: str) -> Path:
    """The folder with the source's catalogue and events."""
    if not source.endswith((".yaml", ".yml")):
        folder = LOCAL / "data" / source
        if (folder / CATALOGUE_FILE).exists():
            return folder
        from fm_intent.data.sources import prepare

        return prepare(source, LOCAL)
    from fm_intent.data.description import read_description
    from fm_intent.data.reading import read_catalogue_files

    description = read_description(Path(source))
    folder = LOCAL / "data" / description.name
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(read_catalogue_files(description), folder / CATALOGUE_FILE)
    shutil.copyfile(source, folder / DESCRIPTION_FILE)
    try:
        event_days(folder)
    except DataUnusableError as error:
        raise DataUnusableError(
            f"{folder} has no events yet: `intentstream data import --adapter "
            f"{description.events.adapter} --into {folder} FILES` first"
        ) from error
    return folder
