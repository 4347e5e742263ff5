"""What can be known of the hidden intents, and what follows for the next title, by Bayes' rule.

Suffixes name shapes: N rows, A actions, G genres, K kinds, R release ages, S slots, T titles. A
belief is a probability of every intent, [N, A, G, K, R].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lab.simulator.choices import CONTINUE, NONE, REWATCH
from lab.simulator.parts import ACTIONS, PARTS
from stream.domain.labels import GENRES, KINDS, RELEASE_AGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lab.simulator.choices import Choices, Situation
    from lab.simulator.hidden_intents import HiddenIntents, Mixtures
    from lab.simulator.parameters import SimulatorParameters
    from lab.simulator.simulator_catalogue import SimulatorCatalogue

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

SHAPE = tuple(map(len, PARTS.values()))


def certain(intents: HiddenIntents) -> Floats:
    """Belief of who is told the intents."""
    belief = np.zeros((len(intents.action), *SHAPE))
    belief[np.arange(len(belief)), *intents.columns()] = 1.0
    return belief


def long_run(mixtures: Mixtures) -> Floats:
    """Belief of who knows the members' mixtures alone."""
    belief: Floats = np.einsum("na,ng,nk,nr->nagkr", *mixtures.parts)
    return belief


def next_session(belief: Floats, old: Mixtures, new: Mixtures, persistence: float) -> Floats:
    """What `belief`, held at the end of a session, says of the next; see `intents.carried`."""
    for axis, (was, shares) in enumerate(zip(old.parts, new.parts, strict=True), start=1):
        keeps = np.minimum(1.0, np.divide(shares, was, out=np.ones_like(was), where=was > 0))
        grown = np.maximum(shares - was, 0.0)
        grown = grown / np.maximum(grown.sum(1, keepdims=True), np.finfo(float).tiny)
        total = belief.sum(axis, keepdims=True)
        kept = belief * _along(keeps, axis)
        moved = (total - kept.sum(axis, keepdims=True)) * _along(grown, axis)
        belief = persistence * (kept + moved) + (1 - persistence) * total * _along(shares, axis)
    return belief


def after_evidence(belief: Floats, of_action: Floats, of_title: Floats) -> Floats:
    """`belief` after a pick of likelihood `of_action` [N, A] times `of_title` [N, G, K, R]."""
    updated: Floats = belief * of_action[:, :, None, None, None] * of_title[:, None]
    total = updated.sum((1, 2, 3, 4), keepdims=True)
    # A pick that rounding has made impossible says nothing.
    return np.where(total > 0, updated / np.where(total > 0, total, 1.0), belief)


class Outlook:
    """Probabilities of the next title under a belief."""

    def __init__(
        self, parameters: SimulatorParameters, catalogue: SimulatorCatalogue, choices: Choices
    ) -> None:
        self._catalogue = catalogue
        self._choices = choices
        self._of_title, self._of_genre = np.nonzero(catalogue.genres_TG)
        self._genre_gain = np.expm1(parameters.genre_pull)
        self._kind_KK = 1 + np.expm1(parameters.kind_pull) * np.eye(len(KINDS))
        self._age_RR = 1 + np.expm1(parameters.age_pull) * np.eye(len(RELEASE_AGES))

    def actions(self, at: Situation) -> Floats:
        """[N, A, A], of the pick's action, by the intent's."""
        one_of = np.eye(len(ACTIONS))
        rows = len(at.members)
        by_intent = [self._choices.actions(at, np.tile(one, (rows, 1))) for one in one_of]
        return np.stack(by_intent, axis=1)

    def titles(self, at: Situation, belief: Floats, weights: Floats) -> Floats:
        """[N, T], of the pick's title, each of its actions weighed by `weights`; sums to 1.

        Args:
            at: Where the members stand.
            belief: Of the intents in force.
            weights: [A], 0 for an action that is ruled out.
        """
        joint = np.einsum("nagkr,nab->nbgkr", belief, self.actions(at) * weights)
        held = joint[:, [CONTINUE, REWATCH]]
        found = self._found(at, joint.sum(1) - held.sum(1))
        for action, titles in ((0, at.held_NS), (1, at.finished_NS)):
            shares = self.held(at, (CONTINUE, REWATCH)[action])
            mass = np.einsum("ngkr,ngks->ns", held[:, action], shares)
            row, slot = np.nonzero(titles != NONE)
            np.add.at(found, (row, titles[row, slot]), mass[row, slot])
        total = found.sum(1, keepdims=True)
        return found / np.where(total > 0, total, 1.0)

    def held(self, at: Situation, action: int) -> Floats:
        """[N, G, K, S], of each title held, by genre and kind, when `action` is about one."""
        weigh: Callable[[Situation, Ints, Ints], Floats] = (
            self._choices.going_on if action == CONTINUE else self._choices.again
        )
        rows, genre, kind = np.indices((len(at.members), len(GENRES), len(KINDS))).reshape(3, -1)
        weights = weigh(at.take(rows), genre, kind)
        weights = weights.reshape(len(at.members), len(GENRES), len(KINDS), weights.shape[1])
        total = weights.sum(3, keepdims=True)
        return weights / np.where(total > 0, total, 1.0)

    def likelihood(self, at: Situation, title: Ints) -> Floats:
        """[N, G, K, R], up to a factor: how likely each intent finds the unseen `title`."""
        weights = self._choices.before_intent(at, np.arange(len(title)))
        likely = np.empty((len(title), *SHAPE[1:]))
        for row, (weight, day, one) in enumerate(zip(weights, at.day, title, strict=True)):
            match = np.outer(
                self._kind_KK[self._catalogue.kind_T[one]],
                self._age_RR[self._catalogue.age_DT[day, one]],
            )
            gain = 1 + self._genre_gain * self._catalogue.genres_TG[one]
            likely[row] = gain[:, None, None] * match / self._total(weight, self._cells(day))
        return likely

    def _found(self, at: Situation, mass: Floats) -> Floats:
        """[N, T], of each unseen title, `mass` [N, G, K, R] being that of each intent."""
        weights = self._choices.before_intent(at, np.arange(len(mass)))
        for row, (weight, day) in enumerate(zip(weights, at.day, strict=True)):
            cells = self._cells(day)
            share = mass[row] / self._total(weight, cells)
            share = np.einsum("gkr,kl,rs->gls", share, self._kind_KK, self._age_RR)
            share = share.reshape(len(GENRES), -1)
            pairs = share[self._of_genre, cells[self._of_title]]
            weight *= share.sum(0)[cells] + self._genre_gain * np.bincount(
                self._of_title, pairs, len(cells)
            )
        return weights

    def _cells(self, day: int) -> Ints:
        """[T], kind and release age of a title in one number."""
        cells: Ints = self._catalogue.kind_T * len(RELEASE_AGES) + self._catalogue.age_DT[day]
        return cells

    def _total(self, weight: Floats, cells: Ints) -> Floats:
        """[G, K, R], summed weight of all titles under each intent."""
        count = len(KINDS) * len(RELEASE_AGES)
        of_all = np.bincount(cells, weight, count)
        pairs = self._of_genre * count + cells[self._of_title]
        of_genre = np.bincount(pairs, weight[self._of_title], len(GENRES) * count)
        summed = of_all + self._genre_gain * of_genre.reshape(len(GENRES), count)
        total: Floats = np.einsum(
            "gls,kl,rs->gkr", summed.reshape(SHAPE[1:]), self._kind_KK, self._age_RR
        )
        return total


def _along(values: Floats, axis: int) -> Floats:
    """[N, C] as [N, 1, …, C, …, 1], with C at `axis` of a belief."""
    shape = [len(values), 1, 1, 1, 1]
    shape[axis] = values.shape[1]
    return values.reshape(shape)
