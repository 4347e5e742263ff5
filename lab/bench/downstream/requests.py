"""Requests to rank titles for a profile, and their candidates.

A ranker is asked just before each play. A search is asked when the profile searched, if it played
something within half an hour; in a source that has no searches, just before each play, too.

The true title is the one that was played. It stands in column 0 of the candidates; nothing looks at
columns, and ties count against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from lab.bench.downstream.source_history import NO_GENRE, NO_TITLE, by_profile

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from lab.bench.downstream.source_history import Plays, SourceHistory

CANDIDATES: Final = 100
"""Beside the true title, at most."""

FEWEST: Final = 20
"""A search that finds fewer titles is none to re-rank."""

JUST_MS: Final = 1_800_000
"""Half an hour."""

_LATEST_MS: Final = 1 << 42
"""No time comes after this."""

Task = Literal["ranker", "search"]


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where time is cut, Unix milliseconds."""

    t1_ms: int
    """Before: the intent model, popularity, similarity."""
    t2_ms: int
    """From T1 to here: the ranker. From here on: the test."""
    end_ms: int

    @classmethod
    def of(cls, plays: Plays, first: float = 0.7, second: float = 0.85) -> Cuts:
        """At these quantiles of all plays."""
        t1, t2 = np.quantile(plays.start_ms, [first, second], method="lower")
        return cls(int(t1), int(t2), int(plays.start_ms[-1]) + 1)


@dataclass(frozen=True, slots=True)
class Requests:
    """R requests in order of time."""

    profile: NDArray[np.int64]
    """`[R]`."""
    at_ms: NDArray[np.int64]
    """`[R]`, one millisecond before the play began, or the search."""
    candidates: NDArray[np.int64]
    """`[R, 1 + CANDIDATES]` title codes, the true one first; `NO_TITLE` where there are fewer."""
    played_before: NDArray[np.bool_]
    """`[R]`, whether the profile had played the true title before."""
    just_looked_at: NDArray[np.bool_]
    """`[R]`, whether it had looked at the true title within half an hour."""

    def __len__(self) -> int:
        return len(self.profile)

    @property
    def there(self) -> NDArray[np.bool_]:
        """`[R, 1 + CANDIDATES]`, False where there is no candidate."""
        there: NDArray[np.bool_] = self.candidates != NO_TITLE
        return there

    def of(self, rows: NDArray[np.bool_] | slice) -> Requests:
        """These requests alone."""
        return Requests(
            self.profile[rows],
            self.at_ms[rows],
            self.candidates[rows],
            self.played_before[rows],
            self.just_looked_at[rows],
        )


def popularity(plays: Plays, titles: int, until_ms: int) -> NDArray[np.int64]:
    """`[titles]`, plays before a time."""
    return np.bincount(plays.title[plays.start_ms < until_ms], minlength=titles)


def sample(
    history: SourceHistory,
    cuts: Cuts,
    task: Task,
    *,
    among: NDArray[np.int64],
    count: int,
    per_profile: int,
    rng: Generator,
) -> tuple[Requests, Requests]:
    """Requests between T1 and T2, and requests after T2.

    Only plays of titles that had been played before T1 are asked about: the others are never among
    the sampled candidates, so that their having no popularity would give them away.

    Args:
        history: everything.
        cuts: T1 and T2.
        task: `ranker` samples candidates among all titles; `search` among those of the true
            title's first genre, as if that had been searched for.
        among: profile codes that are asked about.
        count: requests of each part, at most.
        per_profile: requests of one profile in each part, at most.
        rng: draws requests and candidates.
    """
    plays = history.plays
    rows, at_ms = np.arange(len(plays.title)), plays.start_ms - 1
    if task == "search" and history.looks.search.any():
        rows, at_ms = _searched(history)
    known = popularity(plays, len(history.titles.ids), cuts.t1_ms)
    # Popularity-sampled without replacement: Gumbel noise on log popularity, the largest taken.
    log_popularity = np.log(known, out=np.full(len(known), -np.inf), where=known > 0)
    title = plays.title[rows]
    usable = (known[title] > 0) & np.isin(plays.profile[rows], among)
    if task == "search":
        usable &= history.titles.primary[title] != NO_GENRE
    rows, at_ms = rows[usable], at_ms[usable]
    parts = []
    for begin, end in ((cuts.t1_ms, cuts.t2_ms), (cuts.t2_ms, cuts.end_ms)):
        asked = np.flatnonzero((at_ms >= begin) & (at_ms < end))
        asked = asked[_spread(plays.profile[rows[asked]], count, per_profile, rng)]
        parts.append(_requests(history, task, rows[asked], at_ms[asked], log_popularity, rng))
    return parts[0], parts[1]


def _searched(history: SourceHistory) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Plays that came of a search, in order of time, and the moment just before the search."""
    plays, looks = history.plays, history.looks
    # One number line for all profiles, each ordered by time.
    play = plays.profile * _LATEST_MS + plays.start_ms
    search = np.sort((looks.profile * _LATEST_MS + looks.at_ms)[looks.search])
    row = np.argsort(play, kind="stable")
    play = play[row]
    last = np.searchsorted(search, play, side="right") - 1
    since = np.where(last < 0, JUST_MS, play - search[last])
    # The first play since the search: the one before it came earlier than the search.
    first = np.append(True, last[1:] != last[:-1])
    came = np.flatnonzero(first & (since < JUST_MS))
    at_ms = search[last[came]] % _LATEST_MS - 1
    order = np.argsort(at_ms, kind="stable")
    return row[came][order], at_ms[order]


def _spread(
    profile: NDArray[np.int64], count: int, per_profile: int, rng: Generator
) -> NDArray[np.intp]:
    """Indices, ascending, of at most `count` rows, at most `per_profile` of each profile."""
    shuffled = rng.permutation(len(profile))
    by_profile = shuffled[np.argsort(profile[shuffled], kind="stable")]
    owner = profile[by_profile]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    drawn = by_profile[rank < per_profile]
    if len(drawn) > count:
        drawn = rng.choice(drawn, count, replace=False)
    return np.sort(drawn)


def _requests(
    history: SourceHistory,
    task: Task,
    rows: NDArray[np.intp],
    at_ms: NDArray[np.int64],
    log_popularity: NDArray[np.float64],
    rng: Generator,
) -> Requests:
    plays, looks, titles = history.plays, history.looks, history.titles
    plays_of = by_profile(plays.profile, len(history.profiles))
    looks_of = by_profile(looks.profile, len(history.profiles))
    candidates = np.full((len(rows), 1 + CANDIDATES), NO_TITLE)
    candidates[:, 0] = plays.title[rows]
    played_before = np.zeros(len(rows), np.bool_)
    just_looked_at = np.zeros(len(rows), np.bool_)
    for request, row in enumerate(rows):
        profile, title, now = plays.profile[row], plays.title[row], at_ms[request]
        mine = plays_of[profile]
        seen = plays.title[mine[plays.start_ms[mine] <= now]]
        mine = looks_of[profile]
        just = (looks.at_ms[mine] <= now) & (looks.at_ms[mine] > now - JUST_MS)
        played_before[request] = (seen == title).any()
        just_looked_at[request] = (looks.title[mine[just]] == title).any()
        chance = log_popularity.copy()
        chance[title] = -np.inf
        if not history.repeats:
            chance[seen] = -np.inf
        if task == "search":
            chance[titles.genres[:, titles.primary[title]] == 0] = -np.inf
        drawn = chance + rng.gumbel(size=len(chance))
        most = min(CANDIDATES, len(drawn))
        best = np.argpartition(-drawn, most - 1)[:most]
        best = best[np.isfinite(drawn[best])]
        candidates[request, 1 : 1 + len(best)] = best
    requests = Requests(
        plays.profile[rows],
        at_ms,
        candidates,
        played_before,
        just_looked_at,
    )
    return requests.of(requests.there.sum(1) >= FEWEST)
