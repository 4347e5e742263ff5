"""Keys and values of past interactions, kept between requests: one event costs one position.

A slot of the slab holds what one profile's last window left behind: each position's keys and values
in every layer, and the inputs that they were computed from. In a causal network they depend on
those of that position and the ones before alone, so they are good for any window that begins with
the same inputs, whoever asks: a position is reused if it and all before it are equal, and the rest
is computed. A new event, a sitting that goes on, a late event, a dropped block, an evicted profile
and a fresh instance differ only in how much that is, never in the answer. Inputs are compared as
they are, not by a digest, so nothing can collide.

Imports torch, numpy and the network alone: an exported model version carries a copy of this file.
"""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from .network import Answer, FMIntent, Interactions, Layer

_INPUTS: Final = 3
"""Numbers that hold a position's inputs."""

_GROUPS: Final = (1, 4, 16, 64)
"""Rows with at most so many new positions, and more than the group before, are computed together:
padding them costs less than another pass, but a whole window would cost one new position much."""


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

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.misses + other.misses,
            self.evictions + other.evictions,
            self.positions + other.positions,
        )


class Cache:
    """A slab of slots, the least recently used of which goes to a profile that has none.

    Not for several threads at once.

    Args:
        model: in evaluation mode; its weights must not change.
        top: next titles of an answer.
        window: interactions of a slot; longer windows are answered without the cache.
        budget_bytes: of the slab. A card's memory is taken at once, a host's as slots are used.

    Attributes:
        slots: profiles that are kept at most.
        profile_bytes: of one slot.
        counts: of all calls so far.

    Raises:
        ValueError: when the budget doesn't suffice for one profile.
    """

    @torch.inference_mode()
    def __init__(self, model: FMIntent, top: int, window: int, budget_bytes: int) -> None:
        self.profile_bytes = profile_bytes(model, window)
        self.slots = budget_bytes // self.profile_bytes
        if self.slots < 1:
            raise ValueError(
                f"a cache of {budget_bytes} bytes holds no profile, which takes "
                f"{self.profile_bytes}; give it more"
            )
        self.counts = Counts()
        self._model = model
        self._titles_TD = model.titles()
        self._top = top
        self._window = window
        # Zeros, not whatever memory holds: a masked NaN would still be one.
        heads, width = model.architecture.heads, self._titles_TD.shape[1]
        # Each head's keys lie together, and each head's values: attention reads them as they are,
        # which over long windows takes a fifth of the time that interleaved ones do.
        device = self._titles_TD.device
        self._kept = _untouched_zeros(
            (_layers(model), 2, self.slots, heads, window, width // heads),
            self._titles_TD.dtype,
            device,
        )
        self._inputs = _untouched_zeros((self.slots, _INPUTS, window), torch.int64, device)
        self._valid = self._inputs.new_zeros(self.slots)
        self._order = torch.arange(window, device=self._valid.device)
        self._slot_of: OrderedDict[int, int] = OrderedDict()
        self._free = list(range(self.slots))
        extend = _Pass(model, top)
        # Equal windows, in a slot that nobody has yet. That one position is new is recorded as a
        # constant, so several have a recording of their own.
        self._one = self._recorded_pass(extend, positions=1)
        self._several = self._recorded_pass(extend, positions=2)
        self._whole = recorded(Whole(model, self._titles_TD, top), *_zeros(2, self._kept.device))

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
        fits_B = x.length_B <= self._window
        if kept_B is not None:
            fits_B &= kept_B
        if fits_B.all():
            return self._kept_answer(profile_B, x)
        if not fits_B.any():
            return self._whole_answer(x)
        # The others must not take the cache from what they came with.
        kept, whole = fits_B.nonzero()[:, 0], (~fits_B).nonzero()[:, 0]
        parts = [
            self._kept_answer(profile_B[kept], _rows(x, kept)),
            self._whole_answer(_rows(x, whole)),
        ]
        return _joined(parts, torch.cat([kept, whole]).argsort())

    def _kept_answer(self, profile_B: Tensor, x: Interactions) -> Answer:
        """Answers for windows that the cache keeps."""
        profiles = profile_B.tolist()
        parts = [
            self._round(profiles[rows], Interactions(*(column[rows] for column in x)))
            for rows in _rounds(profiles, self.slots)
        ]
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _whole_answer(self, x: Interactions) -> Answer:
        """Answers for windows that the cache doesn't keep."""
        rows, length = x.title_BL.shape
        self.counts += Counts(misses=rows, positions=rows * length)
        answer = Answer(*self._whole(*x))
        _check(_sound(answer))
        return answer

    @torch.inference_mode()
    def forget(self, profiles: Iterable[int]) -> None:
        """Drop what is kept of these profiles, and overwrite it."""
        self._release([self._slot_of.pop(one) for one in set(profiles) if one in self._slot_of])

    def _release(self, slots: list[int]) -> None:
        """Overwrite slots and have them free."""
        slot = torch.tensor(slots, dtype=torch.int64, device=self._valid.device)
        self._clear(slot)
        self._inputs[slot] = 0
        self._free += slots

    def _clear(self, slot_B: Tensor) -> None:
        self._kept[:, :, slot_B] = 0
        self._valid[slot_B] = 0

    def _recorded_pass(self, extend: nn.Module, positions: int) -> nn.Module:
        device = self._kept.device
        slot_B = torch.zeros(2, dtype=torch.int64, device=device)
        position_BQ = torch.arange(positions, device=device).expand(2, -1)
        return recorded(extend, self._kept, *_zeros(positions, device), slot_B, position_BQ)

    def _round(self, profiles: list[int], x: Interactions) -> Answer:
        """Rows of different profiles, no more than there are slots."""
        length = x.title_BL.shape[1]
        slot_B = torch.tensor(self._claim(profiles), device=x.length_B.device)
        inputs_BIL = _inputs(x)
        same_BL = (self._inputs.index_select(0, slot_B)[:, :, :length] == inputs_BIL).all(1)
        reused_B = same_BL.cumprod(1).sum(1).minimum(self._valid[slot_B]).minimum(x.length_B - 1)
        # What is about to be overwritten is given up first, and the slot is good again when all of
        # it is there: whatever happens in between, it holds nothing that is half true.
        self._valid[slot_B] = reused_B
        answer = self._extended(slot_B, x, reused_B)
        sound_B = _sound(answer)
        if not sound_B.all():
            self._clear(slot_B)
        _check(sound_B)
        self._inputs[:, :, :length].index_copy_(0, slot_B, inputs_BIL)
        self._valid[slot_B] = x.length_B
        hits = int((reused_B > 0).sum())
        self.counts += Counts(hits=hits, misses=len(profiles) - hits)
        return answer

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

    def _extended(self, slot_B: Tensor, x: Interactions, reused_B: Tensor) -> Answer:
        """The answers, computing the positions that aren't reused."""
        new_B = x.length_B - reused_B
        group_B = torch.bucketize(new_B, torch.tensor(_GROUPS, device=new_B.device))
        groups = sorted(set(group_B.tolist()))
        if len(groups) == 1:
            return self._pass(slot_B, x, int(new_B.max()))
        places, parts = [], []
        for group in groups:
            rows = (group_B == group).nonzero()[:, 0]
            parts.append(self._pass(slot_B[rows], _rows(x, rows), int(new_B[rows].max())))
            places.append(rows)
        return _joined(parts, torch.cat(places).argsort())

    def _pass(self, slot_B: Tensor, x: Interactions, newest: int) -> Answer:
        """The answers, computing the `newest` positions of each row at once."""
        longest = int(x.length_B.max())
        columns = [column[:, :longest] if column.dim() > 1 else column for column in x]
        position_BQ = x.length_B[:, None] - 1
        if newest > 1:
            position_BQ = (position_BQ - self._order[:newest].flip(0)).clamp(min=0)
        self.counts += Counts(positions=position_BQ.numel())
        run = self._one if newest == 1 else self._several
        return Answer(*run(self._kept, *columns, slot_B, position_BQ))


class _Pass(nn.Module):
    """New positions through all layers: a function of tensors to tensors."""

    def __init__(self, model: FMIntent, top: int) -> None:
        super().__init__()
        self._model, self._top = model, top
        self._titles = model.frozen_titles()

    def forward(self, kept: Tensor, *tensors: Tensor) -> tuple[Tensor | tuple[Tensor, ...], ...]:
        """The fields of `Answer`.

        Args:
            kept: keys and values `[layers, 2, slots, H, window, E]`; those of new positions are
                written into it.
            tensors: the fields of `Interactions`, the slots `[B]`, and the new positions `[B, Q]`.
        """
        *columns, slot_B, position_BQ = tensors
        x = Interactions(*columns)
        length = x.title_BL.shape[1]
        heads, window = kept.shape[3:5]
        head_BH = slot_B[:, None] * heads + torch.arange(heads, device=kept.device)
        written = (head_BH[:, :, None] * window + position_BQ[:, None]).flatten()
        layers = iter(kept)

        def keep(*new_BHQE: Tensor) -> tuple[Tensor, Tensor]:
            layer = next(layers)
            for part, new in zip(layer, new_BHQE, strict=True):
                part.flatten(0, 2).index_copy_(0, written, new.flatten(0, 2))
            # Whole slots, then cut: cut slots would be copied, all of them, to be selected from.
            keys, values = layer.index_select(1, slot_B)[:, :, :, :length]
            return keys, values

        encoded = self._model.extend(x, position_BQ, self._titles, keep)
        return tuple(self._model.served(encoded, x, self._titles.vector_TD, self._top))


class Whole(nn.Module):
    """Windows through all layers: a function of tensors to tensors."""

    def __init__(self, model: FMIntent, titles_TD: Tensor, top: int) -> None:
        super().__init__()
        self._model, self._titles_TD, self._top = model, titles_TD, top

    def forward(self, *columns: Tensor) -> tuple[Tensor | tuple[Tensor, ...], ...]:
        """The fields of `Answer` for those of `Interactions`."""
        return tuple(self._model.answer(Interactions(*columns), self._titles_TD, self._top))


def recorded(module: nn.Module, *example: Tensor) -> nn.Module:
    """A module without the time that Python takes of it: of one new position a row, half of all.

    What is to replace the tracer, `torch.compile`, needs a C++ compiler where the model is served.
    """
    with warnings.catch_warnings():
        # Of what is recorded as constants, which the examples see to.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            module, example, check_trace=False
        )
        frozen: nn.Module = torch.jit.freeze(traced.eval())
    return frozen


def _zeros(length: int, device: torch.device) -> Interactions:
    """Two equal windows."""
    zeros = torch.zeros(2, length, dtype=torch.int64, device=device)
    return Interactions(zeros, zeros, zeros, zeros.float(), zeros, zeros[:, 0] + length)


def profile_bytes(model: FMIntent, window: int) -> int:
    """Bytes of a slot for `window` interactions."""
    vectors = model.title.weight
    kept = _layers(model) * 2 * vectors.shape[1] * vectors.itemsize
    return window * (kept + _INPUTS * torch.int64.itemsize)


def _untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take a host's memory only where they are written; torch's own write all of it."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    untouched = np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)
    return torch.from_numpy(untouched).view(dtype).view(shape)


def _layers(model: FMIntent) -> int:
    return sum(isinstance(module, Layer) for module in model.modules())


def _inputs(x: Interactions) -> Tensor:
    """All that the network is told of each position: int64 `[B, 3, L]`.

    The gap to the interaction before follows from the starts of both.
    """
    # Bits of a float, and two labels beside a title row, which has at most 40 bits.
    share = x.watched_share_BL.view(torch.int32)
    title = (x.title_BL << 24) | (x.action_BL << 12) | x.device_BL
    return torch.stack([x.start_ms_BL, title, share.long()], dim=1)


def _rows(x: Interactions, rows: Tensor) -> Interactions:
    """These rows, padded to the longest of them."""
    longest = int(x.length_B[rows].max())
    columns = (column[rows, :longest] if column.dim() > 1 else column[rows] for column in x)
    return Interactions(*columns)


def _sound(answer: Answer) -> Tensor:
    """Which rows hold finite numbers only, bool `[B]`."""
    return answer.user_BD.isfinite().all(-1)


def _check(sound_B: Tensor) -> None:
    if not sound_B.all():
        raise FloatingPointError(
            "the network's answer isn't a number; the weights of this version are damaged"
        )


def _rounds(profiles: list[int], most: int) -> Iterator[slice]:
    """The rows in runs of at most `most`, none of which has a profile twice."""
    start, inside = 0, set[int]()
    for row, profile in enumerate(profiles):
        if profile in inside or len(inside) == most:
            yield slice(start, row)
            start, inside = row, set()
        inside.add(profile)
    yield slice(start, len(profiles))


def _joined(parts: list[Answer], order: Tensor | None = None) -> Answer:
    """The rows of all parts, in the given order."""

    def join(tensors: tuple[Tensor, ...]) -> Tensor:
        rows = torch.cat(tensors)
        return rows if order is None else rows[order]

    probs, *others = zip(*parts, strict=True)
    return Answer(tuple(map(join, zip(*probs, strict=True))), *map(join, others))
