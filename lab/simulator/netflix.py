"""The catalogue of 8,807 real titles that the simulated members watch (CC0, carried here)."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

DATA: Final = files("lab.simulator").joinpath("carried", "netflix-titles", "titles.csv.gz")

_GENRES: Final[dict[str, tuple[str, ...]]] = {
    "Action & Adventure": ("action", "adventure"),
    "Anime Features": ("anime",),
    "Anime Series": ("anime",),
    "British TV Shows": ("international",),
    "Children & Family Movies": ("children",),
    "Classic & Cult TV": ("classic",),
    "Classic Movies": ("classic",),
    "Comedies": ("comedy",),
    "Crime TV Shows": ("crime",),
    "Cult Movies": ("classic",),
    "Documentaries": ("documentary",),
    "Docuseries": ("documentary",),
    "Dramas": ("drama",),
    "Faith & Spirituality": ("faith",),
    "Horror Movies": ("horror",),
    "Independent Movies": ("independent",),
    "International Movies": ("international",),
    "International TV Shows": ("international",),
    "Kids' TV": ("children",),
    "Korean TV Shows": ("international",),
    "LGBTQ Movies": ("lgbtq",),
    "Movies": (),
    "Music & Musicals": ("music", "musical"),
    "Reality TV": ("reality",),
    "Romantic Movies": ("romance",),
    "Romantic TV Shows": ("romance",),
    "Sci-Fi & Fantasy": ("sci-fi", "fantasy"),
    "Science & Nature TV": ("science-nature",),
    "Spanish-Language TV Shows": ("international",),
    "Sports Movies": ("sport",),
    "Stand-Up Comedy": ("stand-up",),
    "Stand-Up Comedy & Talk Shows": ("stand-up", "talk-show"),
    "TV Action & Adventure": ("action", "adventure"),
    "TV Comedies": ("comedy",),
    "TV Dramas": ("drama",),
    "TV Horror": ("horror",),
    "TV Mysteries": ("mystery",),
    "TV Sci-Fi & Fantasy": ("sci-fi", "fantasy"),
    "TV Shows": (),
    "TV Thrillers": ("thriller",),
    "Teen TV Shows": ("teen",),
    "Thrillers": ("thriller",),
}


def titles() -> pa.Table:
    """All titles in file order (newest on the service first).

    Columns: `title_id`, `name`, `kind` (movie or show), `genres` list<string>, `release_day` and
    `added_day` int32 days since 1970, `duration_s` float32 (null for a show), `seasons` int32
    (null for a movie). A title that came to the service in its release year is dated by the day it
    came, any other by the first day of its release year. The ten shows without a day of arrival
    count as having always been there.
    """
    with DATA.open("rb") as packed, gzip.open(packed) as file:
        options = csv.ConvertOptions(column_types={"date_added": pa.string()})
        rows = csv.read_csv(file, convert_options=options)
    is_movie = pc.equal(rows["type"], "Movie")
    length = pc.list_element(pc.split_pattern(rows["duration"], " "), 0).cast(pa.int32())
    nothing = pa.scalar(None, pa.int32())
    added = np.array([day or "1970-01-01" for day in rows["date_added"].to_pylist()], "M8[D]")
    year = (rows["release_year"].to_numpy() - 1970).astype("M8[Y]")
    released = np.where(added.astype("M8[Y]") == year, added, year.astype("M8[D]"))
    genres = [
        list(dict.fromkeys(ours for theirs in listed.split(", ") for ours in _GENRES[theirs]))
        for listed in rows["listed_in"].to_pylist()
    ]
    return pa.table(
        {
            "title_id": rows["show_id"],
            "name": rows["title"],
            "kind": pc.if_else(is_movie, "movie", "show"),
            "genres": pa.array(genres, pa.list_(pa.string())),
            "release_day": pa.array(released.astype(np.int64).astype(np.int32)),
            "added_day": pa.array(added.astype(np.int64).astype(np.int32)),
            "duration_s": pc.multiply(pc.if_else(is_movie, length, nothing), 60).cast(pa.float32()),
            "seasons": pc.if_else(is_movie, nothing, length),
        }
    )
