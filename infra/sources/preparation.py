"""Prepare a source once: its two Parquet files, and a stamp that says what made them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.sources import contract, movielens, movietweetings, netflix, ratings
from infra.sources.exceptions import UnknownSourceError
from infra.steps import console, progress
from stream import taxonomy

if TYPE_CHECKING:
    from collections.abc import Callable

STAMP_FILE: Final = "stamp.json"


@dataclass(frozen=True, slots=True)
class Source:
    """A source of histories.

    Attributes:
        heads: The intent heads, of `INTENTS`, that its data can teach; the others are masked.
        make: Writes the source's files; takes the home of all local data and the source's folder.
        depends_on: Files that the outcome depends on.
        terms: To be shown before it is fetched.
    """

    heads: tuple[str, ...]
    make: Callable[[Path, Path], None]
    depends_on: tuple[Path, ...]
    terms: str = ""


def _make_movielens(edition: movielens.Edition, home: Path, directory: Path) -> None:
    contract.write(directory, *movielens.convert(home / "archives", edition))


def _make_movietweetings(_home: Path, directory: Path) -> None:
    contract.write(directory, *movietweetings.convert())


def _make_simulator(is_null_twin: bool, _home: Path, directory: Path) -> None:
    from infra import simulator  # it reads this package's catalogue, so it can't come first

    parameters = simulator.SimulatorParameters()
    if is_null_twin:
        parameters = parameters.null_twin()
    with progress("members", parameters.members) as advance:
        simulator.simulate(parameters, directory, advance)


_COMMON: Final = (Path(contract.__file__), Path(taxonomy.__file__))
_RATINGS: Final = (*_COMMON, Path(ratings.__file__))
_RATING_HEADS: Final = ("genre", "release_age")
"""Ratings know neither what else members did nor shows: every one is the first play of a film."""


def _movielens(edition: movielens.Edition) -> Source:
    depends_on = (*_RATINGS, Path(movielens.__file__))
    return Source(_RATING_HEADS, partial(_make_movielens, edition), depends_on, movielens.TERMS)


def _simulator(*, is_null_twin: bool) -> Source:
    package = Path(__file__).parents[1] / "simulator"
    other_uses = {package / f"{name}.py" for name in ("beliefs", "frozen", "live", "oracle")}
    return Source(
        taxonomy.INTENTS,
        partial(_make_simulator, is_null_twin),
        (
            *_COMMON,
            Path(netflix.__file__),
            *sorted(netflix.DATA.iterdir()),
            *sorted(set(package.glob("*.py")) - other_uses),
        ),
    )


SOURCES: Final[dict[str, Source]] = {
    "ml-1m": _movielens(movielens.ML_1M),
    "ml-100k": _movielens(movielens.ML_100K),
    "movietweetings": Source(
        _RATING_HEADS,
        _make_movietweetings,
        (*_RATINGS, Path(movietweetings.__file__), *sorted(movietweetings.DATA.iterdir())),
    ),
    "simulator": _simulator(is_null_twin=False),
    "simulator-null": _simulator(is_null_twin=True),
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
    directory = home / "data" / source
    stamp = directory / STAMP_FILE
    fingerprint = _fingerprint(SOURCES[source].depends_on)
    if stamp.exists() and json.loads(stamp.read_bytes())["made_by"] == fingerprint:
        console.print(f"data {source}: reusing {directory}")
        return directory
    if SOURCES[source].terms:
        console.print(SOURCES[source].terms, highlight=False, soft_wrap=True)
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
