"""The hidden intents: four parts that stay, or are drawn anew from a member's long-run mixture."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.simulator.members import pick_rows

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from lab.simulator.members import Members

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HiddenIntents:
    """The four parts of N intents, as indices of the labels in `PARTS`."""

    action: Ints
    genre: Ints
    kind: Ints
    release_age: Ints

    def take(self, rows: Any) -> HiddenIntents:
        """Those of `rows`."""
        return HiddenIntents(*(column[rows] for column in self.columns()))

    def put(self, rows: Any, others: HiddenIntents) -> None:
        """Write `others` over `rows`, in place."""
        for own, other in zip(self.columns(), others.columns(), strict=True):
            own[rows] = other

    def columns(self) -> tuple[Ints, ...]:
        """The parts in order."""
        return tuple(getattr(self, part.name) for part in fields(self))


@dataclass(frozen=True, slots=True)
class Mixtures:
    """Long-run shares of every part of N members' intents at some time: [N, labels] each."""

    parts: tuple[Floats, ...]

    def take(self, rows: Any) -> Mixtures:
        """Those of `rows`."""
        return Mixtures(tuple(shares[rows] for shares in self.parts))

    def put(self, rows: Any, others: Mixtures) -> None:
        """Write `others` over `rows`, in place."""
        for own, other in zip(self.parts, others.parts, strict=True):
            own[rows] = other

    def drawn(self, rng: Generator) -> HiddenIntents:
        """An intent of each row."""
        return HiddenIntents(*(pick_rows(rng, shares) for shares in self.parts))


def mixtures(members: Members, rows: Ints, at_s: Floats, first_day: int) -> Mixtures:
    """The mixtures of members `rows` at times `at_s`."""
    return Mixtures(
        (
            members.action_MA[rows],
            members.genres(rows, at_s),
            members.kinds(rows, at_s, first_day),
            members.age_MR[rows],
        )
    )


def carried(
    rng: Generator, before: HiddenIntents, old: Mixtures, new: Mixtures, persistence: float
) -> HiddenIntents:
    """The next session's intents: each part stays with probability `persistence`.

    The time of day changes the mixture from `old` to `new`. A part that stays follows it by maximal
    coupling: label c is kept with probability min(1, new_c / old_c), else it moves to a label whose
    share has grown. So a part drawn from `old` is one drawn from `new` afterwards, whatever the
    persistence: twins that differ in it alone have intents of the same marginal distribution.
    """
    parts = []
    for label, was, shares in zip(before.columns(), old.parts, new.parts, strict=True):
        rows = np.arange(len(label))
        stays = rng.random(len(label)) < persistence
        keeps = rng.random(len(label)) * was[rows, label] < shares[rows, label]
        grown = pick_rows(rng, np.maximum(shares - was, 0.0))
        fresh = pick_rows(rng, shares)
        parts.append(np.where(stays, np.where(keeps, label, grown), fresh))
    return HiddenIntents(*parts)
