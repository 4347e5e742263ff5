"""The pass over new positions as torch's own operations, recorded so that Python takes no time.

It serves wherever the compiled pass doesn't, a card included. A slot holds each position's keys and
values in every layer, beside the inputs that they were computed from, which are compared as they
are, not by a digest: nothing can collide.

Imports torch and the network alone: an exported model version carries a copy of this file.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from .network import Answer, FMIntent, Interactions
from .ways import Extended, joined, layers_of, rows_of, untouched_zeros

_INPUTS: Final = 3
"""Numbers that hold a position's inputs."""

_GROUPS: Final = (1, 4, 16, 64)
"""Rows with at most so many new positions, and more than the group before, are computed together:
padding them costs less than another pass, but a whole window would cost one new position much."""


class Recorded:
    """A network's pass as a recording.

    Args:
        model: in evaluation mode; its weights must not change.
        top: next titles of an answer.
        window: interactions of a slot.

    """

    name: Final = "recorded"

    @torch.inference_mode()
    def __init__(self, model: FMIntent, top: int, window: int) -> None:
        titles_TD = model.titles()
        self.window = window
        self.device = titles_TD.device
        heads, width = model.architecture.heads, titles_TD.shape[1]
        layers = layers_of(model)
        # Each head's keys lie together, and each head's values: attention reads them as they are,
        # which over long windows takes a fifth of the time that interleaved ones do.
        self._parts = (layers, 2)
        self._vectors = (heads, window, width // heads)
        self._order = torch.arange(window, device=self.device)
        self.open(2)
        # Equal windows. That one position is new is recorded as a constant, so several have a
        # recording of their own.
        extend = _Pass(model, top)
        self._one = self._recorded_pass(extend, positions=1)
        self._several = self._recorded_pass(extend, positions=min(2, window))
        self._whole = recorded(Whole(model, titles_TD, top), *_zeros(2, self.device))

    @staticmethod
    def slot_bytes(model: FMIntent, window: int) -> int:
        """Bytes of a slot for `window` interactions."""
        vectors = model.title.weight
        kept = layers_of(model) * 2 * vectors.shape[1] * vectors.itemsize
        return window * (kept + _INPUTS * torch.int64.itemsize)

    def open(self, slots: int) -> None:
        """Take memory for so many slots: a card's at once, a host's as they are written."""
        # Zeros, not whatever memory holds: a masked NaN would still be one.
        self._kept = untouched_zeros(
            (*self._parts, slots, *self._vectors), torch.float32, self.device
        )
        self._inputs = untouched_zeros((slots, _INPUTS, self.window), torch.int64, self.device)
        self._valid = self._inputs.new_zeros(slots)

    def extended(self, slots: Sequence[int], x: Interactions) -> Extended:
        """The answers of rows in these slots, computing what can't be reused."""
        length = x.title_BL.shape[1]
        slot_B = torch.tensor(slots, device=self.device)
        kept_BIL = self._inputs.index_select(0, slot_B)[:, :, :length]
        same_BL = (kept_BIL == _inputs(x)).all(1)
        reused_B = same_BL.cumprod(1).sum(1).minimum(self._valid[slot_B]).minimum(x.length_B - 1)
        self._valid[slot_B] = reused_B
        new_B = x.length_B - reused_B
        group_B = torch.bucketize(new_B, torch.tensor(_GROUPS, device=self.device))
        parts, places, positions, whole_s = [], [], 0, 0.0
        for group in sorted(set(group_B.tolist())):
            rows = (group_B == group).nonzero()[:, 0]
            most, missed = int(new_B[rows].max()), int((reused_B[rows] == 0).sum())
            began = time.perf_counter()
            parts.append(self._pass(slot_B[rows], rows_of(x, rows), most))
            whole_s += (time.perf_counter() - began) * missed / len(rows)
            positions += most * len(rows)
            places.append(rows)
        return Extended(
            answer=joined(parts, torch.cat(places).argsort()) if len(parts) > 1 else parts[0],
            hits=int((reused_B > 0).sum()),
            positions=positions,
            whole_s=whole_s,
        )

    def keep(self, slots: Sequence[int], x: Interactions) -> None:
        """Have the slots' positions count as good, of windows whose answers are sound."""
        slot_B = torch.tensor(slots, device=self.device)
        inputs_BIL = _inputs(x)
        self._inputs[:, :, : inputs_BIL.shape[2]].index_copy_(0, slot_B, inputs_BIL)
        self._valid[slot_B] = x.length_B

    def clear(self, slots: Sequence[int]) -> None:
        """Overwrite what is kept in these slots."""
        slot = torch.tensor(slots, dtype=torch.int64, device=self.device)
        self._kept[:, :, slot] = 0
        self._inputs[slot] = 0
        self._valid[slot] = 0

    def whole(self, x: Interactions) -> Answer:
        """The answers, of which nothing is kept."""
        return Answer(*self._whole(*x))

    def _recorded_pass(self, extend: nn.Module, positions: int) -> nn.Module:
        slot_B = torch.arange(2, device=self.device)
        position_BQ = torch.arange(positions, device=self.device).expand(2, -1)
        return recorded(extend, self._kept, *_zeros(positions, self.device), slot_B, position_BQ)

    def _pass(self, slot_B: Tensor, x: Interactions, newest: int) -> Answer:
        """The answers, computing the `newest` positions of each row at once."""
        position_BQ = x.length_B[:, None] - 1
        if newest > 1:
            position_BQ = (position_BQ - self._order[:newest].flip(0)).clamp(min=0)
        run = self._one if newest == 1 else self._several
        return Answer(*run(self._kept, *x, slot_B, position_BQ))


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


def _inputs(x: Interactions) -> Tensor:
    """All that the network is told of each position: int64 `[B, 3, L]`.

    The gap to the interaction before follows from the starts of both.
    """
    # Bits of a float, and two labels beside a title row, which has at most 40 bits.
    share = x.watched_share_BL.view(torch.int32)
    title = (x.title_BL << 24) | (x.action_BL << 12) | x.device_BL
    return torch.stack([x.start_ms_BL, title, share.long()], dim=1)
