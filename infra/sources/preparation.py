"""Prepare a source once: its two Parquet files, and a stamp that says what made them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from infra.sources import contract, movielens, movietweetings, netflix, ratings
from infra.sources.exceptions import UnknownSourceError
from stream import taxonomy

if TYPE_CHECKING:
    from collections.abc import Callable

STAMP_FILE: Final = "stamp.json"


@dataclass(frozen=True, slots=True)
class _Source:
    """How a source is made, and the files that its outcome depends on."""

    make: Callable[[Path, Path], None]
    depends_on: tuple[Path, ...]
    terms: str = ""


def _make_movielens(home: Path, directory: Path) -> None:
    contract.write(directory, *movielens.convert(home / "archives"))


def _make_movietweetings(_home: Path, directory: Path) -> None:
    contract.write(directory, *movietweetings.convert())


def _make_simulator(_home: Path, directory: Path) -> None:
    from infra import simulator  # it reads this package's catalogue, so it can't come first

    simulator.simulate(simulator.SimulatorParameters(), directory)


_COMMON: Final = (Path(contract.__file__), Path(taxonomy.__file__))
_RATINGS: Final = (*_COMMON, Path(ratings.__file__))

SOURCES: Final[dict[str, _Source]] = {
    "ml-1m": _Source(_make_movielens, (*_RATINGS, Path(movielens.__file__)), movielens.TERMS),
    "movietweetings": _Source(
        _make_movietweetings,
        (*_RATINGS, Path(movietweetings.__file__), *sorted(movietweetings.DATA.iterdir())),
    ),
    "simulator": _Source(
        _make_simulator,
        (
            *_COMMON,
            Path(netflix.__file__),
            *sorted(netflix.DATA.iterdir()),
            *sorted(Path(__file__).parents[1].joinpath("simulator").glob("*.py")),
        ),
    ),
}
"""The sources by name, in the order of preference."""


def prepare(source: str, home: Path) -> Path:
    """Make the files of `source` unless the same code and data have made them before.

    Args:
        source: A name in `SOURCES`.
        home: The folder that holds all local data; the files go to `data/<source>` in it.

    Returns:
        The folder with `catalogue.parquet` and `events.parquet`.

    Raises:
        UnknownSourceError: when there is no such source.
        ArchiveUnavailableError: when a download fails.
        UnexpectedDataError: when the data is not what its publisher describes.
    """
    if source not in SOURCES:
        raise UnknownSourceError(f"no source {source!r}; choose one of {', '.join(SOURCES)}")
    console = Console()
    directory = home / "data" / source
    stamp = directory / STAMP_FILE
    fingerprint = _fingerprint(SOURCES[source].depends_on)
    if stamp.exists() and json.loads(stamp.read_bytes())["made_by"] == fingerprint:
        console.print(f"data {source}: reusing {directory}")
        return directory
    if SOURCES[source].terms:
        console.print(SOURCES[source].terms, markup=False, highlight=False, soft_wrap=True)
    console.print(f"data {source}: converting into {directory} …")
    began = time.perf_counter()
    stamp.unlink(missing_ok=True)
    SOURCES[source].make(home, directory)
    stamp.write_text(json.dumps({"source": source, "made_by": fingerprint}))
    console.print(f"data {source}: done in {time.perf_counter() - began:.1f} s")
    return directory


def _fingerprint(paths: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
