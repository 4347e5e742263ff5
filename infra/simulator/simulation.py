"""The life of the members, session by session: what they intend, look at and watch.

All members' j-th sessions are simulated at once, pick by pick, in NumPy columns. Suffixes name
shapes: M all members, T titles; columns without a suffix have one row per member active in the
round. Times are seconds since the first day's midnight, UTC.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from infra.simulator.catalogue import MOVIE, SHOW
from infra.simulator.members import pick_rows
from stream.taxonomy import ACTIONS

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from infra.simulator.catalogue import Catalogue
    from infra.simulator.members import Members
    from infra.simulator.parameters import SimulatorParameters

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

DISCOVER, CONTINUE, REWATCH, TRAILER, OPEN, SEARCH, LIST = range(len(ACTIONS))

DAY_S: Final = 86_400.0
NONE: Final = -1
MAX_PAUSES: Final = 2

_BETWEEN_SESSIONS_S: Final = 2_700.0
_SLOTS: Final = 8
"""Titles that a member keeps in progress, on the list, and in mind for watching again."""


Rows = dict[str, "NDArray[Any]"]
"""Named columns of one length."""


class Columns:
    """Rows gathered round by round."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[Any]]] = {}

    def add(self, **columns: NDArray[Any]) -> None:
        """Append rows; every call names the same columns, all of one length."""
        for name, values in columns.items():
            self._parts.setdefault(name, []).append(values)

    def joined(self) -> Rows:
        """All rows, in the order they were added."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}


@dataclass(slots=True)
class _Intent:
    action: Ints
    genre: Ints
    kind: Ints
    age: Ints


class Simulation:
    """State of all members; `run` plays it from the first session to the last."""

    def __init__(
        self,
        parameters: SimulatorParameters,
        catalogue: Catalogue,
        members: Members,
        rng: Generator,
    ) -> None:
        count = parameters.members
        self._parameters = parameters
        self._catalogue = catalogue
        self._members = members
        self._rng = rng
        self._first_day = (parameters.first_day - dt.date(1970, 1, 1)).days
        self._busy_until_M = np.zeros(count)
        self._intent_M = _Intent(*(np.full(count, NONE) for _ in range(4)))
        self._seen_MT = np.zeros((count, len(catalogue.title_ids)), dtype=bool)
        # Titles in progress, one slot each
        self._title_MS = np.full((count, _SLOTS), NONE)
        self._season_MS = np.ones((count, _SLOTS), dtype=np.int64)
        self._episode_MS = np.ones((count, _SLOTS), dtype=np.int64)
        self._position_MS = np.zeros((count, _SLOTS))
        self._touched_MS = np.full((count, _SLOTS), -np.inf)
        self._finished_MS = np.full((count, _SLOTS), NONE)
        self._listed_MS = np.full((count, _SLOTS), NONE)
        self._browsing, self._sittings, self._sessions = Columns(), Columns(), Columns()

    def run(self) -> tuple[Rows, Rows, Rows]:
        """Play all sessions of all members.

        Returns:
            browsing: columns member, at_s, event_type (object), title (`NONE` for a search),
                query_for (the title that a search looks for, else `NONE`), device.
            sittings: columns member, at_s, title, season and episode (0 for a film), position_s
                (where it starts), watched_s, complete, device, pause_at_s and pause_s, both
                [rows, MAX_PAUSES] (watched seconds before the pause, and its length or 0).
            sessions: columns member, at_s, action, genre, kind, age: the hidden truth.
        """
        for members, planned in self._plan():
            self._session(members, planned)
        return self._browsing.joined(), self._sittings.joined(), self._sessions.joined()

    def _plan(self) -> list[tuple[Ints, Floats]]:
        """Rounds: the members that have a j-th session, and when they would like to start it."""
        rng, days = self._rng, self._parameters.days
        counts = rng.poisson(self._members.sessions_per_day_M * days)
        member = np.repeat(np.arange(len(counts)), counts)
        day = rng.integers(0, days, len(member))
        at_peak = rng.random(len(member)) < 0.75
        hour = np.where(
            at_peak,
            (self._members.peak_hour_M[member] + rng.normal(0, 1.3, len(member))) % 24,
            rng.uniform(7, 24, len(member)),
        )
        planned = day * DAY_S + hour * 3600
        order = np.lexsort((planned, member))
        member, planned = member[order], planned[order]
        rank = np.arange(len(member)) - np.repeat(np.cumsum(counts) - counts, counts)
        return [(member[rank == j], planned[rank == j]) for j in range(counts.max(initial=0))]

    def _session(self, members: Ints, planned: Floats) -> None:
        rng = self._rng
        start = np.maximum(planned, self._busy_until_M[members] + _BETWEEN_SESSIONS_S)
        within = start < self._parameters.days * DAY_S
        members, start = members[within], start[within]
        if not len(members):
            return
        intent = self._intents(members, start)
        device = pick_rows(rng, self._members.device_MV[members])
        self._sessions.add(
            member=members,
            at_s=start,
            action=intent.action,
            genre=intent.genre,
            kind=intent.kind,
            age=intent.age,
        )
        picks = 1 + rng.poisson(self._parameters.picks_per_session - 1, len(members))
        clock = start.copy()
        going_on = np.full(len(members), NONE)
        made = 0
        while True:
            # A binge goes on past the planned picks, but nobody stays up for ever.
            awake = clock - start < self._parameters.longest_session_s
            active = np.flatnonzero(((made < picks) | (going_on != NONE)) & awake)
            if not len(active):
                break
            part = _Intent(
                intent.action[active], intent.genre[active], intent.kind[active], intent.age[active]
            )
            clock[active], going_on[active] = self._pick(
                members[active], part, clock[active], going_on[active], device[active]
            )
            made += 1
        self._busy_until_M[members] = clock

    def _intents(self, members: Ints, start: Floats) -> _Intent:
        """Each part of the intent stays with a probability or is drawn anew (a Markov chain)."""
        rng, traits, last = self._rng, self._members, self._intent_M
        count = len(members)

        def carried(before: Ints, fresh: Ints) -> Ints:
            stays = rng.random(count) < self._parameters.intent_persistence
            return np.where(stays & (before != NONE), before, fresh)

        hour, weekday = (start / 3600) % 24, (self._first_day + 3 + start // DAY_S) % 7
        film_time = (weekday >= 4) & (hour >= 18)
        odds = traits.movie_M[members] / (1 - traits.movie_M[members])
        odds *= np.where(film_time, 2.5, 0.7)
        fresh_kind = np.where(rng.random(count) < odds / (1 + odds), MOVIE, SHOW)
        intent = _Intent(
            carried(last.action[members], pick_rows(rng, traits.action_MA[members])),
            carried(last.genre[members], pick_rows(rng, traits.genre_MG[members])),
            carried(last.kind[members], fresh_kind),
            carried(last.age[members], pick_rows(rng, traits.age_MR[members])),
        )
        stocked = self._catalogue.pool_size_GK[intent.genre, intent.kind] > 0
        intent.kind = np.where(stocked, intent.kind, 1 - intent.kind)
        # Going on with, or back to, a title means wanting what that title is.
        day = self._first_day + (start // DAY_S).astype(np.int64)
        for action in (CONTINUE, REWATCH):
            chosen = self._from_held(members, action, intent, start)
            about = intent.action == action
            intent.action = np.where(about & (chosen == NONE), DISCOVER, intent.action)
            about &= chosen != NONE
            genres = self._catalogue.genres_TG[chosen]
            fits = genres[np.arange(count), intent.genre]
            one = pick_rows(rng, genres.astype(np.float64))
            intent.genre = np.where(about & ~fits, one, intent.genre)
            intent.kind = np.where(about, self._catalogue.kind_T[chosen], intent.kind)
            intent.age = np.where(about, self._catalogue.age(chosen, day), intent.age)
        last.action[members], last.genre[members] = intent.action, intent.genre
        last.kind[members], last.age[members] = intent.kind, intent.age
        return intent

    def _from_held(self, members: Ints, action: int, intent: _Intent, now: Floats) -> Ints:
        """The title to continue or rewatch that suits best, the lately touched first, or `NONE`."""
        in_progress = action == CONTINUE
        held = (self._title_MS if in_progress else self._finished_MS)[members]
        genre_fits = self._catalogue.genres_TG[held, intent.genre[:, None]]
        kind_fits = self._catalogue.kind_T[held] == intent.kind[:, None]
        score = 1.5 * genre_fits + 1.0 * kind_fits + self._rng.gumbel(size=held.shape)
        if in_progress:
            score -= (now[:, None] - self._touched_MS[members]) / (3 * DAY_S)
        score = np.where(held == NONE, -np.inf, score)
        best = score.argmax(1)
        chosen: Ints = held[np.arange(len(held)), best]
        return chosen

    def _pick(
        self, members: Ints, intent: _Intent, clock: Floats, going_on: Ints, device: Ints
    ) -> tuple[Floats, Ints]:
        """One pick of each member: what they look at, and the sitting it may lead to.

        Returns:
            The clock after it, and the title of a show that the member goes on with at once, else
            `NONE`.
        """
        rng, catalogue = self._rng, self._catalogue
        count = len(members)
        rows = np.arange(count)
        day = self._first_day + (clock // DAY_S).astype(np.int64)
        follows = rng.random(count) < self._parameters.intent_strength
        own = pick_rows(rng, self._members.action_MA[members])
        action = np.where(follows, intent.action, own)
        action = np.where(going_on != NONE, CONTINUE, action)

        continued = self._from_held(members, CONTINUE, intent, clock)
        continued = np.where(going_on != NONE, going_on, continued)
        again = self._from_held(members, REWATCH, intent, clock)
        missing = (action == CONTINUE) & (continued == NONE)
        missing |= (action == REWATCH) & (again == NONE)
        action = np.where(missing, DISCOVER, action)

        shelf = catalogue.shelves(
            rng, intent.genre, intent.kind, intent.age, day, self._parameters.shelf_length
        )
        choices = np.concatenate([shelf, self._listed_MS[members]], axis=1)
        fit = self._fit(members[:, None], choices)
        score = self._parameters.taste_weight * fit + rng.gumbel(size=choices.shape)
        score[:, shelf.shape[1] :] += 1.0
        unseen = ~self._seen_MT[members[:, None], choices]
        there = catalogue.added_day_T[choices] <= day[:, None]
        score = np.where(unseen & there & (choices != NONE), score, -np.inf)
        best = score.argmax(1)
        found = choices[rows, best]
        nothing_left = np.isneginf(score[rows, best])
        title = np.where(action == CONTINUE, continued, np.where(action == REWATCH, again, found))
        browses = ~np.isin(action, (CONTINUE, REWATCH)) & ~nothing_left

        clock = self._browse(members, action, title, shelf, browses, clock, device)
        may_play = np.isin(action, (DISCOVER, CONTINUE, REWATCH)) & (~nothing_left | ~browses)
        plays = np.where(action == SEARCH, rng.random(count) < 0.85, may_play)
        plays = np.where(
            np.isin(action, (TRAILER, OPEN, LIST)), rng.random(count) < 0.15, plays
        ).astype(bool)
        plays &= browses | np.isin(action, (CONTINUE, REWATCH))
        after = np.full(count, NONE)
        at = np.flatnonzero(plays)
        clock[at], after[at] = self._sit(
            members[at], title[at], action[at] == REWATCH, clock[at], device[at]
        )
        return clock, after

    def _fit(self, members: Ints, titles: Ints) -> Floats:
        """How well titles suit members, about standard normal over random pairs."""
        taste = self._members.taste_MD[members]
        fit: Floats = np.einsum("...d,...d->...", taste, self._catalogue.taste_TD[titles])
        return fit

    def _browse(
        self,
        members: Ints,
        action: Ints,
        title: Ints,
        shelf: Ints,
        browses: Bools,
        clock: Floats,
        device: Ints,
    ) -> Floats:
        """Events of looking around before, or instead of, playing."""
        rng = self._rng
        count = len(members)
        clock = clock + rng.uniform(1, 4, count)

        def record(event_type: str, where: Bools, low_s: float, high_s: float) -> None:
            at = np.flatnonzero(where & browses)
            is_search = event_type == "search"
            self._browsing.add(
                member=members[at],
                at_s=clock[at],
                event_type=np.full(len(at), event_type, dtype=object),
                title=np.full(len(at), NONE) if is_search else title[at],
                query_for=title[at] if is_search else np.full(len(at), NONE),
                device=device[at],
            )
            clock[at] += rng.uniform(low_s, high_s, len(at))

        record("search", action == SEARCH, 6, 25)
        shown = shelf[:, : self._parameters.shelf_seen].copy()
        shown[np.arange(count), rng.integers(0, shown.shape[1], count)] = title
        earlier = np.tril(np.ones((shown.shape[1], shown.shape[1]), dtype=bool), k=-1)
        repeated = ((shown[:, :, None] == shown[:, None, :]) & earlier).any(2)
        at, column = np.nonzero(browses[:, None] & ~repeated)
        self._browsing.add(
            member=members[at],
            at_s=clock[at],
            event_type=np.full(len(at), "impression", dtype=object),
            title=shown[at, column],
            query_for=np.full(len(at), NONE),
            device=device[at],
        )
        clock += np.where(browses, rng.uniform(3, 40, count), 0)
        opens = np.where(np.isin(action, (DISCOVER, SEARCH)), 0.55, 0.3)
        opens = np.where(action == OPEN, 1.0, opens)
        record("title_open", rng.random(count) < opens, 6, 35)
        trailers = np.where(action == TRAILER, 1.0, np.where(action == DISCOVER, 0.12, 0.03))
        record("trailer_play", rng.random(count) < trailers, 30, 110)
        adds = np.where(action == LIST, 1.0, np.where(action == OPEN, 0.1, 0.0))
        wants = (rng.random(count) < adds) & ~(self._listed_MS[members] == title[:, None]).any(1)
        record("list_add", wants, 2, 6)
        at = np.flatnonzero(wants & browses)
        # A full list loses its oldest entry without the member taking it off.
        self._listed_MS[members[at]] = np.roll(self._listed_MS[members[at]], 1, axis=1)
        self._listed_MS[members[at], 0] = title[at]
        return clock

    def _sit(
        self, members: Ints, title: Ints, again: Bools, clock: Floats, device: Ints
    ) -> tuple[Floats, Ints]:
        """One sitting each; see `_pick` for what is returned."""
        rng, catalogue = self._rng, self._catalogue
        count = len(members)
        in_slot = (self._title_MS[members] == title[:, None]) & ~again[:, None]
        resumes = in_slot.any(1)
        slot = np.where(resumes, in_slot.argmax(1), self._touched_MS[members].argmin(1))
        is_show = catalogue.kind_T[title] == SHOW
        season = np.where(resumes, self._season_MS[members, slot], 1)
        episode = np.where(resumes, self._episode_MS[members, slot], 1)
        position = np.where(resumes, self._position_MS[members, slot], 0.0)
        reruns = again & is_show
        season = np.where(reruns, 1 + rng.integers(0, catalogue.seasons_T[title]), season)
        episode = np.where(reruns, 1 + rng.integers(0, catalogue.episodes_T[title]), episode)

        # A known title is rarely given up; a new one by how little it suits.
        base = self._parameters.abandon / (1 - self._parameters.abandon)
        odds = base * np.exp(-self._fit(members, title))
        gives_up = rng.random(count) < np.where(resumes | again, 0.25, 1.0) * odds / (1 + odds)
        breaks_off = ~gives_up & (rng.random(count) < np.where(is_show, 0.06, 0.18))
        complete = ~gives_up & ~breaks_off
        share = np.where(
            gives_up,
            rng.uniform(0.02, 0.35, count),
            np.where(breaks_off, rng.uniform(0.25, 0.85, count), rng.uniform(0.95, 1.0, count)),
        )
        watched = np.maximum(share * (catalogue.duration_T[title] - position), 1.0).round(1)
        pauses = np.minimum(rng.poisson(self._parameters.pause_mean, count), MAX_PAUSES)
        pause_at = np.sort(rng.random((count, MAX_PAUSES)), axis=1) * watched[:, None]
        pause_s = np.clip(rng.exponential(240, (count, MAX_PAUSES)), 5, 1200).round(1)
        pause_s *= np.arange(MAX_PAUSES) < pauses[:, None]
        self._sittings.add(
            member=members,
            at_s=clock,
            title=title,
            season=np.where(is_show, season, 0),
            episode=np.where(is_show, episode, 0),
            position_s=position,
            watched_s=watched,
            complete=complete,
            device=device,
            pause_at_s=pause_at.round(1),
            pause_s=pause_s,
        )
        clock = clock + watched + pause_s.sum(1) + rng.uniform(3, 12, count)

        self._seen_MT[members, title] = True
        last_episode = episode >= catalogue.episodes_T[title]
        finished = complete & last_episode & (season >= catalogue.seasons_T[title])
        more = complete & ~finished
        keeps = (more | breaks_off) & ~again
        leaves = resumes & ~keeps
        self._title_MS[members[leaves], slot[leaves]] = NONE
        self._touched_MS[members[leaves], slot[leaves]] = -np.inf
        owner, at = members[keeps], slot[keeps]
        self._title_MS[owner, at] = title[keeps]
        self._touched_MS[owner, at] = clock[keeps]
        self._season_MS[owner, at] = np.where(more & last_episode, season + 1, season)[keeps]
        self._episode_MS[owner, at] = np.where(
            more, np.where(last_episode, 1, episode + 1), episode
        )[keeps]
        self._position_MS[owner, at] = np.where(more, 0.0, position + watched)[keeps]
        new = finished & ~again
        self._finished_MS[members[new]] = np.roll(self._finished_MS[members[new]], 1, axis=1)
        self._finished_MS[members[new], 0] = title[new]
        clock = self._take_off_list(members, title, clock, device)

        binges = more & is_show & ~again & (rng.random(count) < self._members.binge_M[members])
        return clock, np.where(binges, title, NONE)

    def _take_off_list(self, members: Ints, title: Ints, clock: Floats, device: Ints) -> Floats:
        listed = self._listed_MS[members] == title[:, None]
        at = np.flatnonzero(listed.any(1) & (self._rng.random(len(members)) < 0.7))
        self._listed_MS[members[at], listed[at].argmax(1)] = NONE
        self._browsing.add(
            member=members[at],
            at_s=clock[at],
            event_type=np.full(len(at), "list_remove", dtype=object),
            title=title[at],
            query_for=np.full(len(at), NONE),
            device=device[at],
        )
        clock = clock.copy()
        clock[at] += 2.0
        return clock
