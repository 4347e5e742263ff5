"""The bounds of a profile's state, and what the catalogue knows of durations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

_NONE: Final[Mapping[int, int]] = MappingProxyType({})


class Durations:
    """Durations of one sitting, by title hash; also in columns, as compiled loops look them up.

    Args:
        ms: title hash → milliseconds.
    """

    def __init__(self, ms: Mapping[int, int] = _NONE) -> None:
        self._ms: dict[int, int] = {}
        self.take(ms)

    @property
    def ms(self) -> Mapping[int, int]:
        """Title hash → milliseconds."""
        return MappingProxyType(self._ms)

    @property
    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Title hashes, ascending, and their milliseconds; both are `[T]`."""
        return self._columns

    def take(self, newer: Mapping[int, int]) -> None:
        """Learn what a newer catalogue says, in place; titles that it lacks stay as they are."""
        self._ms.update(newer)
        title = np.fromiter(self._ms.keys(), np.int64, len(self._ms))
        ms = np.fromiter(self._ms.values(), np.int64, len(self._ms))
        order = np.argsort(title)
        self._columns = title[order], ms[order]


@dataclass(frozen=True, slots=True)
class Rules:
    """The bounds of a state, and what the catalogue knows of durations."""

    window_length: int = 64
    memory_length: int = 128
    durations: Durations = field(default_factory=Durations)
    """Of titles, for events that don't carry theirs.

    Those known may change: what is kept depends on them only in the share that `MEMORY` has of
    plays that have left the window, and there the larger one stays.
    """
