"""What a way to compute answers from kept positions has to offer; `Cache` chooses slots for it.

Imports torch, numpy and the network alone: an exported model version carries a copy of this file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .network import Answer, FMIntent, Interactions, Layer


class Extended(NamedTuple):
    """Answers for some rows, and what they took."""

    answer: Answer
    hits: int
    """Rows of which a position or more was reused."""

    positions: int
    """Positions computed, padding included."""

    whole_s: float
    """Seconds that went into all other rows."""


class Way(Protocol):
    """Computes answers, and keeps in slots what later ones can be computed from.

    A slot tells how many of its positions are good. What is about to be overwritten is given up
    first, and all of it is good again after `keep`: whatever happens in between, a slot holds
    nothing that is half true.
    """

    @property
    def name(self) -> str:
        """As a version's manifest names it."""

    @property
    def window(self) -> int:
        """Interactions of a slot."""

    def open(self, slots: int) -> None:
        """Take memory for so many slots."""

    def extended(self, slots: Sequence[int], x: Interactions) -> Extended:
        """The answers of rows in different slots, computing what can't be reused."""

    def keep(self, slots: Sequence[int], x: Interactions) -> None:
        """Have these slots' positions count as good."""

    def clear(self, slots: Sequence[int]) -> None:
        """Overwrite what is kept in these slots."""

    def whole(self, x: Interactions) -> Answer:
        """The answers, of which nothing is kept."""


def layers_of(model: FMIntent) -> int:
    """Layers of all stages."""
    return sum(isinstance(module, Layer) for module in model.modules())


def untouched_zeros(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Zeros that take a host's memory only where they are written; torch's own write all of it."""
    if device is not None and device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    untouched = np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)
    return torch.from_numpy(untouched).view(dtype).view(shape)


def rows_of(x: Interactions, rows: Tensor) -> Interactions:
    """These rows, padded to the longest of them."""
    longest = int(x.length_B[rows].max())
    columns = (column[rows, :longest] if column.dim() > 1 else column[rows] for column in x)
    return Interactions(*columns)


def joined(parts: list[Answer], order: Tensor | None = None) -> Answer:
    """The rows of all parts, in the given order."""

    def join(tensors: tuple[Tensor, ...]) -> Tensor:
        rows = torch.cat(tensors)
        return rows if order is None else rows[order]

    probs, *others = zip(*parts, strict=True)
    return Answer(tuple(map(join, zip(*probs, strict=True))), *map(join, others))
