"""How far the answers of two model versions are apart, head by head. Knows no server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.domain.heads import HEADS, INTENTS
from stream.domain.prediction import Intents
from stream.domain.version_labels import BUILT_IN, VersionLabels


@dataclass(frozen=True, slots=True)
class Divergence:
    """Distances between B answers of two versions."""

    heads: dict[str, NDArray[np.float64]]
    """Per head `[B]`, Jensen-Shannon divergence in bits: 0 where equal, 1 where nothing is shared.
    NaN where the first version doesn't predict that head, or the two have other labels of it."""

    overlap: NDArray[np.float64]
    """`[B]`, share of the first version's next titles that the second proposes too."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Divergence over many answers."""

    rows: int
    heads: dict[str, float]
    """Mean divergence of each head that can be compared and the first version predicts, in bits."""

    overlap: float
    """Mean overlap of the next titles."""

    def complaints(self, *, max_divergence: float, min_overlap: float) -> list[str]:
        """What goes beyond these bounds, in words."""
        found = [
            f"{head} diverges by {value:.3f} bits on average, allowed are {max_divergence}"
            for head, value in self.heads.items()
            if value > max_divergence
        ]
        if self.overlap < min_overlap:
            found.append(
                f"{self.overlap:.3f} of the next titles are the same, at least {min_overlap} must"
            )
        return found


def divergence(
    one: Intents, other: Intents, labels: tuple[VersionLabels, VersionLabels] = (BUILT_IN, BUILT_IN)
) -> Divergence:
    """How far `other` is from `one`, row by row; `labels` are the versions'."""
    nothing = np.full(len(one.model_version), np.nan)
    return Divergence(
        {
            head.name: _jensen_shannon(one.probs[head.name], other.probs[head.name])
            if labels[0].of_head(head) == labels[1].of_head(head)
            else nothing
            for head in HEADS
        },
        _overlap(one.next_title_hash, other.next_title_hash),
    )


def drift(parts: Iterable[Divergence]) -> Drift | None:
    """The means over all rows of all parts; None where there are no rows."""
    some = list(parts)
    overlap = np.concatenate([np.empty(0), *(part.overlap for part in some)])
    if not len(overlap):
        return None
    heads = {}
    for head in INTENTS:
        values = np.concatenate([part.heads[head] for part in some])
        predicted = values[~np.isnan(values)]
        if len(predicted):
            heads[head] = float(predicted.mean())
    return Drift(len(overlap), heads, float(overlap.mean()))


def _jensen_shannon(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Lin, "Divergence Measures Based on the Shannon Entropy" (1991), in bits."""
    p, q = one.astype(np.float64), other.astype(np.float64)
    middle = (p + q) / 2
    found: NDArray[np.float64] = np.clip((_relative(p, middle) + _relative(q, middle)) / 2, 0, 1)
    found = np.where(q.any(1), found, 1.0)
    return np.where(p.any(1), found, np.nan)


def _relative(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative entropy in bits; nowhere is p > 0 and q = 0."""
    terms = np.where(p > 0, p * np.log2(np.where(p > 0, p, 1) / np.where(p > 0, q, 1)), 0)
    total: NDArray[np.float64] = terms.sum(1)
    return total


def _overlap(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
    proposed = one != 0
    both = (one[:, :, None] == other[:, None, :]).any(2) & proposed
    count = proposed.sum(1)
    return np.where(count > 0, both.sum(1) / np.maximum(count, 1), 1.0)
