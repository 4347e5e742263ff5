"""How likely each action and each title is at a pick, given the intent.

Members draw from these probabilities, and the oracle scores by them. Suffixes name shapes: N rows,
one per pick; S slots; A actions; T titles; M members of the block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lab.simulator.members import DAY_S
from lab.simulator.parts import ACTIONS
from stream.domain.labels import KINDS, RELEASE_AGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lab.simulator.members import Members
    from lab.simulator.parameters import SimulatorParameters
    from lab.simulator.simulator_catalogue import SimulatorCatalogue

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

DISCOVER, CONTINUE, REWATCH, TRAILER, OPEN, SEARCH, LIST = range(len(ACTIONS))
NONE: Final = -1
_NEVER: Final = -600.0
"""Least log-odds, so that of several long forgotten titles one can still be drawn."""

OPENS_A: Final = np.array([0.3, 0.0, 0.0, 0.2, 1.0, 0.4, 0.2])
TRAILERS_A: Final = np.array([0.06, 0.0, 0.0, 1.0, 0.03, 0.03, 0.03])
LISTS_A: Final = np.array([0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 1.0])
PLAYS_A: Final = np.array([1.0, 1.0, 1.0, 0.15, 0.15, 0.85, 0.15])
"""Probability, by the pick's action, that the title is opened, its trailer seen, it is put on the
list, and it is played: independent of each other and in this order; a search comes before."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Where N members stand at a pick.

    Attributes:
        members: Rows of the members in their block.
        at_s: Seconds since the first day's midnight.
        held_NS: Titles with something to go on with now, else `NONE`.
        left_s_NS: Seconds since each was last watched.
        fresh_NS: Whether the next episode has come since.
        finished_NS: Titles to watch again, else `NONE`.
        listed_NS: Titles on the list, else `NONE`.
        appeal_MT: Of all members of the block: weight of a title by popularity and taste, 0 once
            it was played.
    """

    members: Ints
    at_s: Floats
    held_NS: Ints  # noqa: N815
    left_s_NS: Floats  # noqa: N815
    fresh_NS: Bools  # noqa: N815
    finished_NS: Ints  # noqa: N815
    listed_NS: Ints  # noqa: N815
    appeal_MT: Floats  # noqa: N815

    @property
    def day(self) -> Ints:
        """Day of the simulation."""
        return (self.at_s // DAY_S).astype(np.int64)

    def take(self, rows: Ints) -> Situation:
        """That of `rows`."""
        return Situation(
            self.members[rows],
            self.at_s[rows],
            self.held_NS[rows],
            self.left_s_NS[rows],
            self.fresh_NS[rows],
            self.finished_NS[rows],
            self.listed_NS[rows],
            self.appeal_MT,
        )


class Choices:
    """The probabilities, by parameters, catalogue and the members of a block."""

    def __init__(
        self, parameters: SimulatorParameters, catalogue: SimulatorCatalogue, members: Members
    ) -> None:
        self._parameters = parameters
        self._catalogue = catalogue
        self._members = members
        own_genre = np.exp(parameters.genre_pull * catalogue.genres_TG.T)
        own_kind = np.exp(
            parameters.kind_pull * (catalogue.kind_T == np.arange(len(KINDS))[:, None])
        )
        self._match_GKT = own_genre[:, None] * own_kind
        ages = np.arange(len(RELEASE_AGES))[:, None, None]
        self._match_RDT = np.exp(parameters.age_pull * (catalogue.age_DT == ages))

    def appeal(self) -> Floats:
        """[M, T], weight of each title by popularity and taste."""
        fit = self._members.taste_MC @ self._catalogue.taste_TC.T
        weights: Floats = np.exp(self._catalogue.popularity_T + self._parameters.taste_pull * fit)
        return weights

    def actions(self, at: Situation, intended: Floats) -> Floats:
        """[N, A], of the pick's action.

        Args:
            at: Where the members stand.
            intended: [N, A], of the intent's action; one-hot where it is known.
        """
        p = self._parameters
        own = self._members.action_MA[at.members]
        likely: Floats = p.intent_strength * intended + (1 - p.intent_strength) * own
        pulled = np.where(at.fresh_NS.any(1), p.fresh_action, 0.0)
        likely *= 1 - pulled[:, None]
        likely[:, CONTINUE] += pulled
        for action, there in ((CONTINUE, at.held_NS), (REWATCH, at.finished_NS)):
            nothing = (there == NONE).all(1)
            likely[nothing, DISCOVER] += likely[nothing, action]
            likely[nothing, action] = 0.0
        return likely

    def going_on(self, at: Situation, genre: Ints, kind: Ints) -> Floats:
        """[N, S], weight of each held title when something is gone on with."""
        pull = self._held_pull(at.held_NS, genre, kind)
        pull -= at.left_s_NS / (self._parameters.held_days * DAY_S)
        pull += self._parameters.fresh_pull * at.fresh_NS
        weights: Floats = np.where(at.held_NS == NONE, 0.0, np.exp(np.maximum(pull, _NEVER)))
        return weights

    def again(self, at: Situation, genre: Ints, kind: Ints) -> Floats:
        """[N, S], weight of each finished title when something is watched again."""
        pull = self._held_pull(at.finished_NS, genre, kind)
        weights: Floats = np.where(at.finished_NS == NONE, 0.0, np.exp(pull))
        return weights

    def unseen(self, at: Situation, rows: Ints, genre: Ints, kind: Ints, age: Ints) -> Floats:
        """[len(rows), T], weight of each title when `rows` of `at` look for something new.

        Args:
            at: Where the members stand.
            rows: Those of them to answer for.
            genre: Intended by each of `rows`.
            kind: Intended by each of `rows`.
            age: Intended by each of `rows`.
        """
        weights = self.before_intent(at, rows)
        weights *= self._match_GKT[genre, kind]
        weights *= self._match_RDT[age, at.day[rows]]
        return weights

    def before_intent(self, at: Situation, rows: Ints) -> Floats:
        """The same before the intent: by popularity, taste, arrival and the member's list."""
        weights: Floats = at.appeal_MT[at.members[rows]]
        weights *= self._catalogue.arrival_DT[at.day[rows]]
        listed = at.listed_NS[rows]
        pull = np.where(listed == NONE, 1.0, np.exp(self._parameters.list_pull))
        weights[np.arange(len(rows))[:, None], listed] *= pull
        return weights

    def _held_pull(self, held: Ints, genre: Ints, kind: Ints) -> Floats:
        p, catalogue = self._parameters, self._catalogue
        has_genre = catalogue.genres_TG[held, genre[:, None]]
        has_kind = catalogue.kind_T[held] == kind[:, None]
        pull: Floats = p.held_genre_pull * has_genre + p.held_kind_pull * has_kind
        return pull
