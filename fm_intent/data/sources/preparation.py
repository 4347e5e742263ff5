"""Prepare a source once: its two Parquet files, and a stamp that says what made them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import yaml

from fm_intent.data import contract
from fm_intent.data.sources import movielens, movietweetings
from stream.domain.labels import DEVICES, GENRES, KINDS
from stream.exceptions import UnknownSourceError
from stream.plugins import plugins
from stream.steps import console

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

STAMP_FILE: Final = "stamp.json"
DESCRIPTION_FILE: Final = "source.yaml"


@dataclass(frozen=True, slots=True)
class Source:
    """A source of histories.

    Attributes:
        make: Writes the source's files; takes the home of all local data and the source's folder.
        made_by: Names the code that makes the files, and what it makes them of.
        terms: To be shown before it is fetched.
        untold: Kinds of fault that all its records have, because it tells less than a service.
        hidden: Tells the labels of the intents in force, of a simulated source: takes its
            folder, `[N]` profiles and `[N]` times in ms.
    """

    make: Callable[[Path, Path], None]
    made_by: str
    terms: str = ""
    untold: tuple[str, ...] = ()
    hidden: Callable[[Path, NDArray[np.str_], NDArray[np.int64]], dict[str, Any]] | None = None


def _make_movielens(edition: movielens.Edition, home: Path, directory: Path) -> None:
    contract.write(directory, *movielens.convert(home / "archives", edition))


def _make_movietweetings(_home: Path, directory: Path) -> None:
    contract.write(directory, *movietweetings.convert())


_OF_RATINGS: Final = ("device_missing", "share_unknown")

_EDITION: Final = 1
"""Raised when other files come of the same ratings, so that prepared ones are made anew."""


def _movielens(edition: movielens.Edition) -> Source:
    made_by = f"{_EDITION} of {movielens.ARCHIVE_SHA256}"
    return Source(partial(_make_movielens, edition), made_by, movielens.TERMS, _OF_RATINGS)


_RATED: Final[dict[str, Source]] = {
    "ml-1m": _movielens(movielens.ML_1M),
    "ml-100k": _movielens(movielens.ML_100K),
    "movietweetings": Source(
        _make_movietweetings, f"{_EDITION} of {movietweetings.sha256()}", untold=_OF_RATINGS
    ),
}


@cache
def sources() -> dict[str, Source]:
    """The sources by name, in the order of preference.

    A package adds its own by an entry point of the group `intentstream.sources`, a dictionary of
    names and sources.
    """
    found = dict(_RATED)
    for added in plugins("intentstream.sources"):
        found |= added
    return found


def prepare(source: str, home: Path) -> Path:
    """Make the files of `source` unless the same code and data have made them before.

    Args:
        source: A name in `sources()`.
        home: The folder that holds all local data; the files go to `data/<source>` in it.

    Returns:
        The folder with `catalogue.parquet` and `events.parquet`, and the `source.yaml` of both.

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
    directory.mkdir(parents=True, exist_ok=True)
    (directory / DESCRIPTION_FILE).write_text(_described(source, made))
    if stamp.exists() and json.loads(stamp.read_bytes())["made_by"] == fingerprint:
        console.print(f"data {source}: reusing {directory}")
        return directory
    if made.terms:
        console.print(made.terms, highlight=False, soft_wrap=True)
    console.print(f"data {source}: converting into {directory} …")
    began = time.perf_counter()
    stamp.unlink(missing_ok=True)
    made.make(home, directory)
    stamp.write_text(json.dumps({"source": source, "made_by": fingerprint}))
    console.print(f"data {source}: done in {time.perf_counter() - began:.1f} s")
    return directory


def _described(source: str, made: Source) -> str:
    """The `source.yaml` of a source of ours, whose labels are the ones that always were."""
    labels = {"genres": GENRES, "kinds": KINDS, "devices": DEVICES}
    described = {
        "name": source,
        "events": {"path": contract.EVENTS_FILE},
        "catalogue": {"path": contract.CATALOGUE_FILE},
        "labels": {name: {"fixed": list(known)} for name, known in labels.items()},
        "training": {"split": "leave-one-out"},
    }
    if made.untold:
        described["gates"] = {"check": {name: {} for name in made.untold}}
    return yaml.safe_dump(described, sort_keys=False)


def _fingerprint(made: Source) -> str:
    schemas = [str(one) for one in (contract.CATALOGUE_SCHEMA, contract.EVENTS_SCHEMA)]
    return hashlib.sha256(repr((made.made_by, schemas, GENRES, KINDS)).encode()).hexdigest()
