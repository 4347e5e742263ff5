"""The life of a block of members, session by session: what they intend, look at and watch.

All members' j-th sessions are simulated at once, pick by pick, in NumPy columns. Suffixes name
shapes: M members of the block, T titles, S slots; columns without a suffix have one row per member
active in the round. Times are seconds since the first day's midnight, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lab.simulator.choices import (
    CONTINUE,
    LISTS_A,
    NONE,
    OPENS_A,
    PLAYS_A,
    REWATCH,
    SEARCH,
    TRAILERS_A,
    Choices,
    Situation,
)
from lab.simulator.hidden_intents import HiddenIntents, Mixtures, carried, mixtures
from lab.simulator.members import DAY_S, day_weights, pick_rows
from lab.simulator.parts import ACTIONS
from lab.simulator.simulator_catalogue import SHOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator
    from numpy.typing import NDArray

    from lab.simulator.members import Members
    from lab.simulator.parameters import SimulatorParameters
    from lab.simulator.simulator_catalogue import SimulatorCatalogue

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

MAX_PAUSES: Final = 2

_BETWEEN_SESSIONS_S: Final = 2_700.0
_SLOTS: Final = 8
"""Titles that a member keeps in progress, on the list, and in mind for watching again."""
_SHELF: Final = 6
"""Titles that a member is shown before one is chosen, itself included."""
_ROWS_AT_A_TIME: Final = 64
"""So that a step's weights of all titles stay in the processor's cache."""


Rows = dict[str, "NDArray[Any]"]
"""Named columns of one length."""


class GatheredRows:
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


@dataclass(frozen=True, slots=True)
class Lives:
    """What happened to the members of a block.

    Attributes:
        browsing: Columns member, pick, at_s, event_type (object), title (`NONE` for a search),
            query_for (the title that a search looks for, else `NONE`), device.
        sittings: Columns member, pick, at_s, title, season and episode (0 for a film), position_s
            (where it starts), watched_s, complete, more (whether another episode is there), device,
            pause_at_s and pause_s, both [rows, MAX_PAUSES] (watched seconds before the pause, and
            its length or 0).
        spells: Columns member, from_s, to_s, action, genre, kind, age: the hidden truth.
    """

    browsing: Rows
    sittings: Rows
    spells: Rows


@dataclass(frozen=True, slots=True)
class Pick:
    """N picks about to be made.

    Attributes:
        at: Where the members stand.
        number: How many picks each has made before.
        in_session: How many picks of their sessions came before.
        intents: The hidden intents in force.
        going_on: The title of a show whose next episode is watched at once, else `NONE`.
    """

    at: Situation
    number: Ints
    in_session: int
    intents: HiddenIntents
    going_on: Ints


class Simulation:
    """State of a block of members; `run` plays it from the first session to the last."""

    def __init__(
        self,
        parameters: SimulatorParameters,
        catalogue: SimulatorCatalogue,
        members: Members,
        rng: Generator,
    ) -> None:
        count = len(members.country_M)
        self._parameters = parameters
        self._catalogue = catalogue
        self._members = members
        self._rng = rng
        self._choices = Choices(parameters, catalogue, members)
        self._appeal_MT = self._choices.appeal()
        self._busy_until_M = np.zeros(count)
        self._intents_M = HiddenIntents(*(np.zeros(count, np.int64) for _ in range(4)))
        self._last_session_M = np.full(count, np.nan)
        self._picks_M = np.zeros(count, np.int64)
        # Titles in progress, one slot each
        self._title_MS = np.full((count, _SLOTS), NONE)
        self._season_MS = np.ones((count, _SLOTS), dtype=np.int64)
        self._episode_MS = np.ones((count, _SLOTS), dtype=np.int64)
        self._position_MS = np.zeros((count, _SLOTS))
        self._touched_MS = np.full((count, _SLOTS), -np.inf)
        self._finished_MS = np.full((count, _SLOTS), NONE)
        self._listed_MS = np.full((count, _SLOTS), NONE)
        self._browsing, self._sittings, self._spells = (
            GatheredRows(),
            GatheredRows(),
            GatheredRows(),
        )

    def run(self) -> Lives:
        """Play all sessions of all members."""
        for _ in self.picks():
            pass
        return self.lives()

    @property
    def choices(self) -> Choices:
        """The probabilities that members draw from."""
        return self._choices

    def picks(self) -> Iterator[Pick]:
        """Play all sessions, and show the picks of each round just before they are made."""
        for members, planned in self._plan():
            yield from self._session(members, planned)

    def lives(self) -> Lives:
        """What has happened so far."""
        return Lives(self._browsing.joined(), self._sittings.joined(), self._spells.joined())

    def _plan(self) -> list[tuple[Ints, Floats]]:
        """Rounds: the members that have a j-th session, and when they would like to start it."""
        rng, days = self._rng, self._parameters.days
        counts = rng.poisson(self._members.sessions_per_day_M * days)
        member = np.repeat(np.arange(len(counts)), counts)
        weights = day_weights(days, self._catalogue.first_day)
        day = rng.choice(days, len(member), p=weights)
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

    def _session(self, members: Ints, planned: Floats) -> Iterator[Pick]:
        rng = self._rng
        start = np.maximum(planned, self._busy_until_M[members] + _BETWEEN_SESSIONS_S)
        within = start < self._parameters.days * DAY_S
        members, start = members[within], start[within]
        if not len(members):
            return
        mixture = self._mixtures(members, start)
        intents = self._first_intents(members, mixture)
        device = pick_rows(rng, self._members.devices(members, start))
        picks = 1 + rng.poisson(self._parameters.picks_per_session - 1, len(members))
        clock, spell_from = start.copy(), start.copy()
        going_on = np.full(len(members), NONE)
        made = 0
        while True:
            # A binge goes on past the planned picks, but nobody stays up for ever.
            awake = clock - start < self._parameters.longest_session_s
            goes_on = going_on != NONE
            active = np.flatnonzero(((made < picks) | goes_on) & awake)
            if not len(active):
                break
            switches = rng.random(len(members)) < self._parameters.intent_switch
            fresh = mixture.drawn(rng)
            at = np.intersect1d(active, np.flatnonzero(switches & ~goes_on)) if made else active[:0]
            self._end_spells(members[at], intents.take(at), spell_from[at], clock[at])
            intents.put(at, fresh.take(at))
            spell_from[at] = clock[at]
            pick = Pick(
                self._situation(members[active], clock[active]),
                self._picks_M[members[active]],
                made,
                intents.take(active),
                going_on[active],
            )
            yield pick
            clock[active], going_on[active] = self._make(pick, device[active])
            self._picks_M[members[active]] += 1
            made += 1
        self._end_spells(members, intents, spell_from, clock)
        self._intents_M.put(members, intents)
        self._busy_until_M[members] = clock
        self._last_session_M[members] = start

    def _mixtures(self, members: Ints, at_s: Floats) -> Mixtures:
        return mixtures(self._members, members, at_s, self._catalogue.first_day)

    def _first_intents(self, members: Ints, mixture: Mixtures) -> HiddenIntents:
        last = self._last_session_M[members]
        is_first = np.isnan(last)
        old = self._mixtures(members, np.where(is_first, 0.0, last))
        before = self._intents_M.take(members)
        intents = carried(self._rng, before, old, mixture, self._parameters.intent_persistence)
        intents.put(is_first, mixture.drawn(self._rng).take(is_first))
        return intents

    def _end_spells(
        self, members: Ints, intents: HiddenIntents, start: Floats, end: Floats
    ) -> None:
        self._spells.add(
            member=members,
            from_s=start,
            to_s=end.copy(),
            action=intents.action,
            genre=intents.genre,
            kind=intents.kind,
            release_age=intents.release_age,
        )

    def _situation(self, members: Ints, clock: Floats) -> Situation:
        title, touched = self._title_MS[members], self._touched_MS[members]
        comes_s = DAY_S * (
            self._catalogue.episode_day(title, self._season_MS[members], self._episode_MS[members])
            - self._catalogue.first_day
        )
        held = np.where(comes_s <= clock[:, None], title, NONE)
        return Situation(
            members=members,
            at_s=clock,
            held_NS=held,
            left_s_NS=np.where(held == NONE, 0.0, clock[:, None] - touched),
            fresh_NS=(held != NONE) & (comes_s > touched),
            finished_NS=self._finished_MS[members],
            listed_NS=self._listed_MS[members],
            appeal_MT=self._appeal_MT,
        )

    def _make(self, pick: Pick, device: Ints) -> tuple[Floats, Ints]:
        """One pick of each member: what they look at, and the sitting it may lead to.

        Returns:
            The clock after it, and the title of a show that the member goes on with at once, else
            `NONE`.
        """
        rng, choices, at, intents = self._rng, self._choices, pick.at, pick.intents
        count = len(at.members)
        rows = np.arange(count)
        intended = np.eye(len(ACTIONS))[intents.action]
        action = pick_rows(rng, choices.actions(at, intended))
        action = np.where(pick.going_on != NONE, CONTINUE, action)
        held = pick_rows(rng, choices.going_on(at, intents.genre, intents.kind))
        again = pick_rows(rng, choices.again(at, intents.genre, intents.kind))
        title = np.where(action == CONTINUE, at.held_NS[rows, held], at.finished_NS[rows, again])
        title = np.where(pick.going_on != NONE, pick.going_on, title)
        browses = ~np.isin(action, (CONTINUE, REWATCH))
        shelf = np.full((count, _SHELF), NONE)
        looking = np.flatnonzero(browses)
        shelf[looking] = self._shelves(at, looking, intents)
        title = np.where(browses, shelf[:, 0], title)

        clock = self._browse(pick, action, title, shelf, device)
        after = np.full(count, NONE)
        plays = np.flatnonzero(rng.random(count) < PLAYS_A[action])
        clock[plays], after[plays] = self._sit(
            at.members[plays],
            pick.number[plays],
            title[plays],
            action[plays] == REWATCH,
            clock[plays],
            device[plays],
        )
        return clock, after

    def _shelves(self, at: Situation, looking: Ints, intents: HiddenIntents) -> Ints:
        """For each row of `looking` some titles by their weights, [len(looking), _SHELF]."""
        drawn = np.empty((len(looking), _SHELF), np.int64)
        draws = self._rng.random(drawn.shape)
        for first in range(0, len(looking), _ROWS_AT_A_TIME):
            part = slice(first, first + _ROWS_AT_A_TIME)
            rows = looking[part]
            weights = self._choices.unseen(
                at, rows, intents.genre[rows], intents.kind[rows], intents.release_age[rows]
            )
            cumulative = np.cumsum(weights, axis=1, out=weights)
            cumulative /= cumulative[:, -1:]
            # One sorted number line for all rows: row i's titles lie between i and i + 1.
            row = np.arange(len(rows))[:, None]
            cumulative += row
            found = np.searchsorted(cumulative.ravel(), draws[part] + row, side="right")
            drawn[part] = found - row * weights.shape[1]
        return drawn.clip(max=self._appeal_MT.shape[1] - 1)

    def _browse(self, pick: Pick, action: Ints, title: Ints, shelf: Ints, device: Ints) -> Floats:
        """Events of looking around before, or instead of, playing; the clock after them."""
        rng, members = self._rng, pick.at.members
        count = len(members)
        clock = pick.at.at_s + rng.uniform(1, 4, count)
        browses = shelf[:, 0] != NONE

        def record(event_type: str, where: Bools, low_s: float, high_s: float) -> None:
            at = np.flatnonzero(where)
            is_search = event_type == "search"
            nothing = np.full(len(at), NONE)
            self._browsing.add(
                member=members[at],
                pick=pick.number[at],
                at_s=clock[at],
                event_type=np.full(len(at), event_type, dtype=object),
                title=nothing if is_search else title[at],
                query_for=title[at] if is_search else nothing,
                device=device[at],
            )
            clock[at] += rng.uniform(low_s, high_s, len(at))

        record("search", action == SEARCH, 6, 25)
        # The chosen title stands anywhere on the shelf.
        shown, column = shelf.copy(), rng.integers(0, _SHELF, count)
        shown[np.arange(count), column], shown[:, 0] = shelf[:, 0], shelf[np.arange(count), column]
        earlier = np.tril(np.ones((_SHELF, _SHELF), dtype=bool), k=-1)
        repeated = ((shown[:, :, None] == shown[:, None, :]) & earlier).any(2)
        at, column = np.nonzero(browses[:, None] & ~repeated)
        self._browsing.add(
            member=members[at],
            pick=pick.number[at],
            at_s=clock[at],
            event_type=np.full(len(at), "impression", dtype=object),
            title=shown[at, column],
            query_for=np.full(len(at), NONE),
            device=device[at],
        )
        clock += np.where(browses, rng.uniform(3, 40, count), 0)
        record("title_open", rng.random(count) < OPENS_A[action], 6, 35)
        record("trailer_play", rng.random(count) < TRAILERS_A[action], 30, 110)
        wants = rng.random(count) < LISTS_A[action]
        wants &= ~(pick.at.listed_NS == title[:, None]).any(1)
        record("list_add", wants, 2, 6)
        at = np.flatnonzero(wants)
        # A full list loses its oldest entry without the member taking it off.
        self._listed_MS[members[at]] = np.roll(self._listed_MS[members[at]], 1, axis=1)
        self._listed_MS[members[at], 0] = title[at]
        return clock

    def _sit(
        self,
        members: Ints,
        number: Ints,
        title: Ints,
        again: Bools,
        clock: Floats,
        device: Ints,
    ) -> tuple[Floats, Ints]:
        """One sitting each; see `_make` for what is returned."""
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
        fit = (self._members.taste_MC[members] * catalogue.taste_TC[title]).sum(1)
        odds = self._parameters.abandon / (1 - self._parameters.abandon) * np.exp(-fit)
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

        last_episode = episode >= catalogue.episodes_T[title]
        finished = complete & last_episode & (season >= catalogue.seasons_T[title])
        more = complete & ~finished
        next_season = np.where(more & last_episode, season + 1, season)
        next_episode = np.where(more, np.where(last_episode, 1, episode + 1), episode)
        ends = clock + watched + pause_s.sum(1) + rng.uniform(3, 12, count)
        day = catalogue.episode_day(title, next_season, next_episode) - catalogue.first_day
        more_now = more & is_show & ~again & (day * DAY_S <= ends)
        self._sittings.add(
            member=members,
            pick=number,
            at_s=clock,
            title=title,
            season=np.where(is_show, season, 0),
            episode=np.where(is_show, episode, 0),
            position_s=position,
            watched_s=watched,
            complete=complete,
            more=more_now,
            device=device,
            pause_at_s=pause_at.round(1),
            pause_s=pause_s,
        )

        self._appeal_MT[members, title] = 0.0
        keeps = (more | breaks_off) & ~again
        leaves = resumes & ~keeps
        self._title_MS[members[leaves], slot[leaves]] = NONE
        self._touched_MS[members[leaves], slot[leaves]] = -np.inf
        owner, at = members[keeps], slot[keeps]
        self._title_MS[owner, at] = title[keeps]
        self._touched_MS[owner, at] = ends[keeps]
        self._season_MS[owner, at] = next_season[keeps]
        self._episode_MS[owner, at] = next_episode[keeps]
        self._position_MS[owner, at] = np.where(more, 0.0, position + watched)[keeps]
        new = finished & ~again
        self._finished_MS[members[new]] = np.roll(self._finished_MS[members[new]], 1, axis=1)
        self._finished_MS[members[new], 0] = title[new]
        ends = self._take_off_list(members, number, title, ends, device)

        binges = more_now & (rng.random(count) < self._members.binge_M[members])
        return ends, np.where(binges, title, NONE)

    def _take_off_list(
        self, members: Ints, number: Ints, title: Ints, clock: Floats, device: Ints
    ) -> Floats:
        listed = self._listed_MS[members] == title[:, None]
        at = np.flatnonzero(listed.any(1) & (self._rng.random(len(members)) < 0.7))
        self._listed_MS[members[at], listed[at].argmax(1)] = NONE
        self._browsing.add(
            member=members[at],
            pick=number[at],
            at_s=clock[at],
            event_type=np.full(len(at), "list_remove", dtype=object),
            title=title[at],
            query_for=np.full(len(at), NONE),
            device=device[at],
        )
        clock = clock.copy()
        clock[at] += 2.0
        return clock
