"""The bounds of a profile's state, and what the catalogue knows of durations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Durations(NamedTuple):
    """Durations of titles, as loops look them up; both columns are `[T]`."""

    title: NDArray[np.int64]
    """Hashes of titles, ascending."""
    ms: NDArray[np.int64]
    """Of one sitting."""


@dataclass(frozen=True)
class Rules:
    """The bounds of a state, and what the catalogue knows of durations."""

    window_length: int = 64
    memory_length: int = 128
    duration_ms: Mapping[int, int] = field(default_factory=dict)
    """Title hash → duration of one sitting, for events that don't carry theirs.

    Those known may change: what is kept depends on them only in the share that `MEMORY` has of
    plays that have left the window, and there the larger one stays.
    """

    @cached_property
    def durations(self) -> Durations:
        """`duration_ms` in columns."""
        title = np.fromiter(self.duration_ms.keys(), np.int64, len(self.duration_ms))
        ms = np.fromiter(self.duration_ms.values(), np.int64, len(self.duration_ms))
        order = np.argsort(title)
        return Durations(title[order], ms[order])
