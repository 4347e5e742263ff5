"""The command `intentstream data build`: which data it builds, and the table that it prints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from fm_intent.data.building import Built, build
from fm_intent.data.contract import CATALOGUE_FILE
from intentstream.paths import LOCAL
from stream.plain_text import PlainConsole

if TYPE_CHECKING:
    from fm_intent.data.description import SourceDescription
    from fm_intent.data.engines import EngineName


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
    return taken_in(Path(source))[1]


def taken_in(file: Path) -> tuple[SourceDescription, Path]:
    """The description in a file, and the folder that its source's files were taken into.

    Raises:
        DescriptionError: when the file isn't a description.
        DataUnusableError: when the source's files are missing or can't be read.
    """
    from fm_intent.data.description import read_description
    from fm_intent.data.taking_in import REJECTED_FILE, take_in
    from stream.domain.version_labels import beside_other

    description = read_description(file)
    folder = LOCAL / "data" / description.name
    taken = take_in(description, file, folder)
    labels, console = taken.labels, PlainConsole()
    console.print(
        f"data {description.name}: {taken.files:,} files of events taken in, {taken.kept_files:,} "
        f"were before; {taken.titles:,} titles, {beside_other(labels.genres)} genres, "
        f"{beside_other(labels.kinds)} kinds, {beside_other(labels.devices)} devices; "
        f"in {folder}",
        soft_wrap=True,
    )
    if taken.rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in taken.rejected.items())
        console.print(f"rejected: {reasons}; {folder / REJECTED_FILE} has them", soft_wrap=True)
    return description, folder
