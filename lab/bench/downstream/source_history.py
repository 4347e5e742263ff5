"""What happened, as arrays: who played and looked at what, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fm_intent.data.contract import CATALOGUE_FILE, EVENTS_FILE
from stream.domain.event_types import LOOKS
from stream.domain.labels import GENRES, KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NO_TITLE: Final = -1
NO_GENRE: Final = -1
UNKNOWN_DAY: Final = -(1 << 31)
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class TitleColumns:
    """The catalogue; a title's code is its row."""

    ids: list[str]
    """T."""
    genres: NDArray[np.float32]
    """`[T, len(GENRES)]`, 1 where the title has the genre."""
    primary: NDArray[np.int64]
    """`[T]` index into `GENRES` of the genre that is named first, or `NO_GENRE`."""
    kind: NDArray[np.int64]
    """`[T]` index into `KINDS`; -1 where unknown."""
    release_day: NDArray[np.int64]
    """`[T]` days since 1970-01-01, or `UNKNOWN_DAY`."""


@dataclass(frozen=True, slots=True)
class Plays:
    """Sittings in order of their start; every column is `[N]`."""

    profile: NDArray[np.int64]
    title: NDArray[np.int64]
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    """The sitting's last event."""
    progress: NDArray[np.float32]
    """How far into the title its end was, 0 to 1; NaN where unknown."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Searches, opened titles, trailers and additions to the list, in order of time, `[M]`."""

    profile: NDArray[np.int64]
    title: NDArray[np.int64]
    """`NO_TITLE` for a search."""
    at_ms: NDArray[np.int64]
    search: NDArray[np.bool_]
    """Whether it was a search."""


@dataclass(frozen=True, slots=True)
class SourceHistory:
    """Everything that happened in a source."""

    profiles: list[str]
    titles: TitleColumns
    plays: Plays
    looks: Looks
    repeats: bool
    """Whether any title was played again by the same profile."""

    @classmethod
    def read(cls, data_dir: Path) -> Self:
        """The history in a source's folder."""
        titles = _titles(pq.read_table(data_dir / CATALOGUE_FILE))
        events = pq.read_table(
            data_dir / EVENTS_FILE,
            columns=[
                *("profile_id", "event_type", "occurred_at_ms", "title_id", "playback_id"),
                *("watched_s", "position_s", "duration_s"),
            ],
        )
        profile_ids = pc.unique(events["profile_id"]).sort()
        profile = pc.index_in(events["profile_id"], profile_ids).to_numpy().astype(np.int64)
        title = pc.fill_null(
            pc.index_in(events["title_id"], pa.array(titles.ids)).cast(pa.int64()), NO_TITLE
        ).to_numpy()
        at_ms = events["occurred_at_ms"].to_numpy()
        plays = _plays(events, profile, title, at_ms)
        pairs = plays.profile * len(titles.ids) + plays.title
        looked = pc.is_in(events["event_type"], pa.array(LOOKS)).to_numpy()
        search = pc.equal(events["event_type"], "search").to_numpy()
        return cls(
            profiles=profile_ids.to_pylist(),
            titles=titles,
            plays=plays,
            looks=Looks(profile[looked], title[looked], at_ms[looked], search[looked]),
            repeats=len(np.unique(pairs)) < len(pairs),
        )


def _titles(catalogue: pa.Table) -> TitleColumns:
    named = catalogue["genres"].to_pylist()
    genres = np.zeros((len(named), len(GENRES)), np.float32)
    for row, names in enumerate(named):
        genres[row, [GENRES.index(name) for name in names]] = 1
    kind = pc.fill_null(pc.index_in(catalogue["kind"], pa.array(KINDS)), -1)
    return TitleColumns(
        ids=catalogue["title_id"].to_pylist(),
        genres=genres,
        primary=np.array(
            [GENRES.index(names[0]) if names else NO_GENRE for names in named], np.int64
        ),
        kind=kind.to_numpy().astype(np.int64),
        release_day=pc.fill_null(catalogue["release_day"].cast(pa.int64()), UNKNOWN_DAY).to_numpy(),
    )


def _plays(
    events: pa.Table,
    profile: NDArray[np.int64],
    title: NDArray[np.int64],
    at_ms: NDArray[np.int64],
) -> Plays:
    rows = np.flatnonzero(pc.is_valid(events["playback_id"]).to_numpy())
    sitting = events["playback_id"].take(pa.array(rows)).combine_chunks().dictionary_encode()
    code = sitting.indices.to_numpy()
    # Events are in order of time, so a sitting's first row is its start and its last its end.
    count = len(sitting.dictionary)
    first, last = np.full(count, len(events)), np.zeros(count, np.int64)
    np.minimum.at(first, code, rows)
    np.maximum.at(last, code, rows)
    order = np.argsort(first)
    first, last = first[order], last[order]
    position, duration = events["position_s"].to_numpy(), events["duration_s"].to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        progress = np.clip(position[last] / duration[last], 0, 1).astype(np.float32)
    return Plays(profile[first], title[first], at_ms[first], at_ms[last], progress)


def by_profile(profile: NDArray[np.int64], profiles: int) -> list[NDArray[np.intp]]:
    """The rows of each profile, in their order."""
    order = np.argsort(profile, kind="stable")
    return np.split(order, np.searchsorted(profile[order], np.arange(1, profiles)))
