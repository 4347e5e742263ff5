"""Prepare a source once: its two Parquet files, as its `source.yaml` says, and a stamp."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from fm_intent.data import contract
from fm_intent.data.description import read_description
from fm_intent.data.reading import OURS, event_batches, read_catalogue_files
from fm_intent.data.sources import movielens, movietweetings
from stream.exceptions import UnexpectedDataError, UnknownSourceError
from stream.plugins import plugins
from stream.steps import console

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from fm_intent.data.description import SourceDescription

STAMP_FILE: Final = "stamp.json"
DESCRIPTION_FILE: Final = "source.yaml"


@dataclass(frozen=True, slots=True)
class Source:
    """A source of histories.

    Attributes:
        description: Text of its `source.yaml`.
        lay: Lays the files that the description names into the source's folder; takes the home of
            all local data and that folder.
        made_by: Names the code that lays the files, and what it makes them of.
        terms: To be shown before it is fetched.
        hidden: Tells the labels of the intents in force, of a simulated source: takes its
            folder, `[N]` profiles and `[N]` times in ms.
    """

    description: str
    lay: Callable[[Path, Path], None]
    made_by: str
    terms: str = ""
    hidden: Callable[[Path, NDArray[np.str_], NDArray[np.int64]], dict[str, Any]] | None = None


_EDITION: Final = 1
"""Raised when other files come of the same ratings, so that prepared ones are made anew."""


def _carried(folder: str) -> str:
    described = files("fm_intent.data.sources").joinpath("carried", folder, DESCRIPTION_FILE)
    return described.read_text()


def _lay_movielens(edition: movielens.Edition, home: Path, directory: Path) -> None:
    movielens.lay(home / "archives", directory, edition)


def _lay_movietweetings(_home: Path, directory: Path) -> None:
    movietweetings.lay(directory)


def _movielens(edition: movielens.Edition) -> Source:
    return Source(
        _carried(edition.name),
        partial(_lay_movielens, edition),
        made_by=f"{_EDITION} of {movielens.ARCHIVE_SHA256}",
        terms=movielens.TERMS,
    )


@cache
def sources() -> dict[str, Source]:
    """The sources by name, in the order of preference.

    A package adds its own by an entry point of the group `intentstream.sources`, a dictionary of
    names and sources.
    """
    found = {
        "ml-1m": _movielens(movielens.ML_1M),
        "ml-100k": _movielens(movielens.ML_100K),
        "movietweetings": Source(
            _carried("movietweetings-100k"),
            _lay_movietweetings,
            made_by=f"{_EDITION} of {movietweetings.sha256()}",
        ),
    }
    for added in plugins("intentstream.sources"):
        found |= added
    return found


def prepare(source: str, home: Path) -> Path:
    """Make the files of `source` unless the same code and data have made them before.

    Args:
        source: A name in `sources()`.
        home: The folder that holds all local data; the files go to `data/<source>` in it.

    Returns:
        The folder with `catalogue.parquet` and `events.parquet`, and the source's `source.yaml`.

    Raises:
        UnknownSourceError: when there is no such source.
        ArchiveUnavailableError: when a download fails.
        UnexpectedDataError: when the data is not what its publisher describes.
    """
    if source not in sources():
        raise UnknownSourceError(f"no source {source!r}; choose one of {', '.join(sources())}")
    made = sources()[source]
    directory = home / "data" / source
    stamp = directory / STAMP_FILE
    fingerprint = _fingerprint(made)
    if stamp.exists() and json.loads(stamp.read_bytes())["made_by"] == fingerprint:
        console.print(f"data {source}: reusing {directory}")
        return directory
    if made.terms:
        console.print(made.terms, highlight=False, soft_wrap=True)
    console.print(f"data {source}: converting into {directory} …")
    began = time.perf_counter()
    directory.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    described = directory / DESCRIPTION_FILE
    described.write_text(made.description)
    made.lay(home, directory)
    description = read_description(described)
    # Events of ours are laid as they are to be; those of others are to be adapted first.
    if description.events.adapter != OURS:
        contract.write(directory, read_catalogue_files(description), _adapted(description))
    stamp.write_text(json.dumps({"source": source, "made_by": fingerprint}))
    console.print(f"data {source}: done in {time.perf_counter() - began:.1f} s")
    return directory


def _adapted(description: SourceDescription) -> pa.Table:
    """All events of a source, in the order of the contract."""
    refused: list[str] = []
    batches = event_batches(description, refuse=lambda one: refused.append(one.why))
    events = pa.Table.from_batches(batches, contract.EVENTS_SCHEMA)
    if refused:
        raise UnexpectedDataError(
            f"{len(refused):,} records of {description.name} are no events, the first one because "
            f"of {refused[0]}; mend them where they are laid"
        )
    return contract.sorted_events(events).combine_chunks()


def _fingerprint(made: Source) -> str:
    schemas = [str(one) for one in (contract.CATALOGUE_SCHEMA, contract.EVENTS_SCHEMA)]
    return hashlib.sha256(repr((made.made_by, made.description, schemas)).encode()).hexdigest()
