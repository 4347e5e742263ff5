"""The states of profiles that a worker keeps, as its steps know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Kept(NamedTuple):
    """A profile whose state is kept."""

    partition: int
    key: bytes
    at_s: float
    """Broker time, in seconds, at which it was kept last."""


class States(Protocol):
    """Where the states of profiles are kept, by the record key."""

    def fetch(self, key: bytes) -> bytes | None:
        """The encoded state of a profile; None where there is none yet."""

    def keep(self, partition: int, key: bytes, value: bytes, at_s: float) -> None:
        """Keep the encoded state of a profile of a partition, at this broker time."""

    def kept_last_s(self, key: bytes) -> float:
        """Broker time, in seconds, at which a profile's state was kept last; 0 without one."""

    def newest_first(self) -> Sequence[Kept]:
        """Every profile whose state is kept, those kept last first."""

    def idle_since(self, at_s: float) -> Sequence[tuple[int, bytes]]:
        """Partition and key of each state that was kept last before this broker time."""

    def drop(self, key: bytes) -> None:
        """Let go of a profile's state."""
