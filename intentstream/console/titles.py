"""The titles that a model version carries: their names, and a plain search over them.

The search stands in for a service's own engine, so that one sees what re-ranking does. It knows
words of names and genres, and nobody's behaviour.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq

from stream.domain.catalogue import CATALOGUE_FILE
from stream.domain.labels import hash64
from stream.domain.rules import Durations
from stream.home import HOME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from stream.settings import Settings

_COLUMNS: Final = ("title_id", "name", "kind", "genres", "release_day", "duration_s")
_WORD: Final = re.compile(r"\w+")
_BEGINNING: Final = 0.5
_GENRE: Final = 0.4
_MOST_WORDS: Final = 64
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Title:
    """What one sees of a title."""

    title_id: str
    name: str
    kind: str | None = None
    genres: tuple[str, ...] = ()
    year: int | None = None
    duration_s: float | None = None


class Titles:
    """Titles, by id and by hash, and by what their names say.

    Args:
        columns: those of a catalogue; all but `title_id` may be missing.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._columns = columns
        self._ids: Sequence[str] = columns.get("title_id", ())
        self._place = {title_id: place for place, title_id in enumerate(self._ids)}

    def __len__(self) -> int:
        return len(self._ids)

    @cached_property
    def _place_of_hash(self) -> dict[int, int]:
        return {hash64(title_id): place for place, title_id in enumerate(self._ids)}

    @cached_property
    def durations(self) -> Durations:
        """How long sittings of them take."""
        known = zip(self._ids, self._columns.get("duration_s", ()), strict=False)
        return Durations({hash64(one): round(1000 * seconds) for one, seconds in known if seconds})

    def of_id(self, title_id: str) -> Title:
        """A title by its id; of one that isn't known no more is."""
        place = self._place.get(title_id)
        return Title(title_id, title_id) if place is None else self._at(place)

    def of_hash(self, title: int) -> Title | None:
        """A title by the hash of its id."""
        place = self._place_of_hash.get(title)
        return None if place is None else self._at(place)

    def search(self, query: str, most: int) -> list[tuple[Title, float]]:
        """Titles that have a word of the query, or one that begins like it, with scores above 0.

        A word counts by how rare it is (idf); in full where the name has it, half where a word of
        the name begins with it, and less where it is a genre of the title. Short names come first.
        """
        scores: dict[int, float] = defaultdict(float)
        for asked in dict.fromkeys(_words(query)):
            best: dict[int, float] = {}
            for word, weight in self._like(asked):
                found = self._index[word]
                rarity = math.log1p(len(self) / len(found)) * weight
                for place, share in found.items():
                    best[place] = max(best.get(place, 0.0), rarity * share)
            for place, score in best.items():
                scores[place] += score
        names = self._columns.get("name", self._ids)
        ranked = sorted(scores, key=lambda place: (-scores[place], names[place]))
        return [(self._at(place), scores[place]) for place in ranked[:most]]

    def _at(self, place: int) -> Title:
        name, kind, genres, day, duration_s = (
            self._columns[column][place] if column in self._columns else None
            for column in _COLUMNS[1:]
        )
        title_id = self._ids[place]
        year = None if day is None else (_EPOCH + timedelta(days=day)).year
        return Title(title_id, name or title_id, kind, tuple(genres or ()), year, duration_s)

    @cached_property
    def _index(self) -> dict[str, dict[int, float]]:
        """Of each word the titles that have it, with what it counts there."""
        index: dict[str, dict[int, float]] = defaultdict(dict)
        for place in range(len(self)):
            title = self._at(place)
            for word in (word for genre in title.genres for word in _words(genre)):
                index[word][place] = _GENRE
            words = _words(title.name)
            for word in words:
                index[word][place] = 1 / (1 + 0.1 * len(words))
        return dict(index)

    @cached_property
    def _vocabulary(self) -> list[str]:
        return sorted(self._index)

    def _like(self, asked: str) -> Iterator[tuple[str, float]]:
        """Words of the index that begin with a word, and what they count."""
        first = bisect_left(self._vocabulary, asked)
        for word in self._vocabulary[first : first + _MOST_WORDS]:
            if not word.startswith(asked):
                return
            yield word, 1.0 if word == asked else _BEGINNING


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def version_folder(settings: Settings, version: str) -> Path:
    """Where a version's files are; the folder may not be there."""
    return HOME / settings.triton_models / settings.model_name / version


def read_titles(settings: Settings, version: str) -> Titles:
    """The titles that a version carries, else those of INTENT_CATALOGUE; none where neither is."""
    carried = version_folder(settings, version) / CATALOGUE_FILE
    for path in (carried if version else None, settings.catalogue):
        if path is None or not path.exists():
            continue
        with pq.ParquetFile(path) as file:
            known = [name for name in _COLUMNS if name in file.schema_arrow.names]
            return Titles(file.read(known).to_pydict())
    return Titles({})
