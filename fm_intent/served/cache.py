"""Past positions are kept between requests, so that one event costs one position.

A slot holds what one profile's last window left behind: what later positions look back at of each
position, in every layer, and the inputs that it was computed from. In a causal network it depends
on the inputs of that position and the ones before alone, so it is good for any window that begins
with the same inputs, whoever asks: a position is reused if it and all before it are equal, and the
rest is computed. A new event, a sitting that goes on, a late event, a dropped block, an evicted
profile and a fresh instance differ only in how much that is, never in the answer.

Imports torch and what is beside it alone: an exported model version carries a copy of this file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from .compiled import Compiled, unfit
from .network import Answer, FMIntent, Interactions
from .recorded import Recorded
from .ways import Way, joined, rows_of

_DAMAGED: Final = "the network's answer isn't a number; the weights of this version are damaged"


@dataclass(frozen=True)
class Counts:
    """Counts of what a cache did for some rows."""

    hits: int = 0
    """Rows of which a position or more was reused."""

    misses: int = 0
    """All other rows."""

    evictions: int = 0
    """Profiles whose slot went to another."""

    positions: int = 0
    """Positions computed, padding included."""

    miss_seconds: float = 0.0
    """Seconds that it took to answer rows of which nothing was reused."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.misses + other.misses,
            self.evictions + other.evictions,
            self.positions + other.positions,
            self.miss_seconds + other.miss_seconds,
        )


class Cache:
    """Slots, the least recently used of which goes to a profile that has none.

    Not for several threads at once.

    Args:
        model: in evaluation mode; its weights must not change.
        top: next titles of an answer.
        window: interactions of a slot; longer windows are answered without the cache.
        budget_bytes: of all slots. A card's memory is taken at once, a host's as slots are used.
        wanted: the pass that is to serve, as a version's manifest names it. The compiled one gives
            way to the recorded one where it can't serve.

    Attributes:
        way: the pass that serves.
        why_recorded: why it isn't the compiled one; nothing where it is.
        slots: profiles that are kept at most.
        profile_bytes: of one slot.
        counts: of all calls so far.

    Raises:
        ValueError: when the budget doesn't suffice for one profile.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: FMIntent,
        top: int,
        window: int,
        budget_bytes: int,
        wanted: str = Compiled.name,
    ) -> None:
        chosen, self.why_recorded = _chosen(model, wanted)
        self.profile_bytes = chosen.slot_bytes(model, window)
        self.slots = budget_bytes // self.profile_bytes
        if self.slots < 1:
            raise ValueError(
                f"a cache of {budget_bytes} bytes holds no profile, which takes "
                f"{self.profile_bytes}; give it more"
            )
        self.counts = Counts()
        self.way: Way = chosen(model, top, window)
        self.way.open(self.slots)
        self._slot_of: OrderedDict[int, int] = OrderedDict()
        self._free = list(range(self.slots))

    @torch.inference_mode()
    def answer(self, profile_B: Tensor, x: Interactions, kept_B: Tensor | None = None) -> Answer:
        """As `FMIntent.answer`, to rounding.

        Args:
            profile_B: int64, whose window each row is. It finds the slot and has no other effect.
            x: the windows.
            kept_B: bool, which rows are to be kept, and answered by what is kept; None for all.

        Raises:
            FloatingPointError: when the network answers with something that isn't a number.
        """
        fits_B = x.length_B <= self.way.window
        if kept_B is not None:
            fits_B &= kept_B
        if fits_B.all():
            return self._kept_answer(profile_B, x)
        if not fits_B.any():
            return self._whole_answer(x)
        # The others must not take the cache from what they came with.
        kept, whole = fits_B.nonzero()[:, 0], (~fits_B).nonzero()[:, 0]
        parts = [
            self._kept_answer(profile_B[kept], rows_of(x, kept)),
            self._whole_answer(rows_of(x, whole)),
        ]
        return joined(parts, torch.cat([kept, whole]).argsort())

    def _kept_answer(self, profile_B: Tensor, x: Interactions) -> Answer:
        """Answers for windows that the cache keeps."""
        profiles = profile_B.tolist()
        if len(set(profiles)) == len(profiles) <= self.slots:
            return self._round(profiles, x)
        parts = [
            self._round(profiles[rows], Interactions(*(column[rows] for column in x)))
            for rows in _rounds(profiles, self.slots)
        ]
        return joined(parts)

    def _whole_answer(self, x: Interactions) -> Answer:
        """Answers for windows that the cache doesn't keep."""
        rows, length = x.title_BL.shape
        self.counts += Counts(misses=rows, positions=rows * length)
        answer = self.way.whole(x)
        if not _is_sound(answer):
            raise FloatingPointError(_DAMAGED)
        return answer

    @torch.inference_mode()
    def forget(self, profiles: Iterable[int]) -> None:
        """Drop what is kept of these profiles, and overwrite it."""
        self._release([self._slot_of.pop(one) for one in set(profiles) if one in self._slot_of])

    def _release(self, slots: list[int]) -> None:
        """Overwrite slots and have them free."""
        self.way.clear(slots)
        self._free += slots

    def _round(self, profiles: list[int], x: Interactions) -> Answer:
        """Rows of different profiles, no more than there are slots."""
        longest = int(x.length_B.max())
        if longest < x.title_BL.shape[1]:
            x = Interactions(*(one[:, :longest] if one.dim() > 1 else one for one in x))
        slots = self._claim(profiles)
        done = self.way.extended(slots, x)
        if not _is_sound(done.answer):
            self.way.clear(slots)
            raise FloatingPointError(_DAMAGED)
        self.way.keep(slots, x)
        self.counts += Counts(
            hits=done.hits,
            misses=len(profiles) - done.hits,
            positions=done.positions,
            miss_seconds=done.whole_s,
        )
        return done.answer

    def _claim(self, profiles: list[int]) -> list[int]:
        """The slots of these profiles, which become the most recently used ones."""
        known, free = self._slot_of, self._free
        absent = [profile for profile in profiles if profile not in known]
        for profile in profiles:
            if profile in known:
                known.move_to_end(profile)
        evictions = max(0, len(absent) - len(free))
        if evictions:
            # Overwritten, or a profile that is to be forgotten later could not be found any more.
            self._release([known.popitem(last=False)[1] for _ in range(evictions)])
        for profile in absent:
            known[profile] = free.pop()
        self.counts += Counts(evictions=evictions)
        return [known[profile] for profile in profiles]


def _is_sound(answer: Answer) -> bool:
    """Whether it holds finite numbers only."""
    return bool(answer.user_BD.isfinite().all())


def _rounds(profiles: list[int], most: int) -> Iterator[slice]:
    """The rows in runs of at most `most`, none of which has a profile twice."""
    start, inside = 0, set[int]()
    for row, profile in enumerate(profiles):
        if profile in inside or len(inside) == most:
            yield slice(start, row)
            start, inside = row, set()
        inside.add(profile)
    yield slice(start, len(profiles))


def profile_bytes(model: FMIntent, window: int, wanted: str = Compiled.name) -> int:
    """Bytes of a slot for `window` interactions, of the pass that serves."""
    return _chosen(model, wanted)[0].slot_bytes(model, window)


def _chosen(model: FMIntent, wanted: str) -> tuple[type[Compiled] | type[Recorded], str]:
    """The pass that serves, and why it isn't the compiled one."""
    if wanted == Recorded.name:
        return Recorded, "its version asks for the recorded one"
    why = unfit(model)
    return (Recorded, why) if why else (Compiled, "")
