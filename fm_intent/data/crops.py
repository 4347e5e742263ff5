"""Windows that are cut out of histories to train on, `[C, 3]` of them at a time.

Of many millions of interactions there are millions of windows, so they are rows of numbers: where
each begins and ends in the flat columns, and from where on the loss counts (see `Crop`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Crops = NDArray[np.int64]
"""`[C, 3]`, a `Crop` each."""


class Crop(NamedTuple):
    """A window over the flat columns: `[start, end)`; the loss counts from `counted` on."""

    start: int
    end: int
    counted: int


def window_start(context: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Where the served window of the first `context` interactions of a history begins.

    A window that would hold more than `length` drops its oldest half at once, so it begins at a
    multiple of `length // 2` and a long history's holds more than half of `length`.
    """
    block = length // 2
    return block * np.maximum(0, -(-(context - length) // block))


def served_crops(first: NDArray[np.int64], last: NDArray[np.int64], length: int) -> Crops:
    """Windows that give every interaction the very context that serving would give it.

    Args:
        first: `[P]`, where each profile's interactions begin.
        last: `[P]`, its last one, which has nothing to predict.
        length: interactions of a window at most.
    """
    first, last = _with_context(first, last)
    block = length // 2
    profile, number = _numbered(window_start(last - first, length) // block + 1)
    start = first[profile] + number * block
    end = np.minimum(start + length, last[profile])
    return np.stack([start, end, start + np.where(number > 0, length - block, 0)], axis=1)


def recent_crops(first: NDArray[np.int64], last: NDArray[np.int64], length: int) -> Crops:
    """The latest window of each profile alone, as benchmarks do; arguments as `served_crops`."""
    first, last = _with_context(first, last)
    start = np.maximum(first, last - length)
    return np.stack([start, last, start], axis=1)


def random_crops(
    first: NDArray[np.int64], last: NDArray[np.int64], length: int, rng: np.random.Generator
) -> Crops:
    """Windows that cover the training part once; arguments as `served_crops`.

    Each history is cut at a random place and at every `length` from there on.
    """
    first, last = _with_context(first, last)
    phase = np.full(len(first), length)
    long = last - first > length
    phase[long] = rng.integers(1, length + 1, int(long.sum()))
    cuts = np.maximum(0, -(-(last - first - phase) // length))
    profile, number = _numbered(cuts + 1)
    begin = first[profile] + phase[profile] + (number - 1) * length
    start = np.where(number > 0, begin, first[profile])
    end = np.where(number < cuts[profile], begin + length, last[profile])
    return np.stack([start, end, start], axis=1)


def batches(crops: Crops, interactions: int, rng: np.random.Generator | None) -> Iterator[Crops]:
    """Crops in batches of similar length.

    Args:
        crops: the windows.
        interactions: of a batch at most, padding included.
        rng: shuffles; without one, the batches come in order of length.
    """
    length = crops[:, 1] - crops[:, 0]
    jitter = rng.uniform(0, 8, len(crops)) if rng is not None else np.zeros(len(crops))
    order = np.argsort(length + jitter, kind="stable")
    begins = [0]
    longest = 0
    for place, one in enumerate(length[order].tolist()):
        longest = max(longest, one)
        if place > begins[-1] and longest * (place - begins[-1] + 1) > interactions:
            begins.append(place)
            longest = one
    ends = [*begins[1:], len(crops)]
    sequence = rng.permutation(len(begins)) if rng is not None else np.arange(len(begins))
    for group in sequence.tolist():
        yield crops[order[begins[group] : ends[group]]]


def _with_context(
    first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    some = last > first
    return first[some], last[some]


def _numbered(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of `counts[i]` things of `i`: i, and which of its things it is."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
