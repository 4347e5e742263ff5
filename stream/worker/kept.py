"""A profile whose state a worker keeps: what all who ask for many of them are answered."""

from __future__ import annotations

from typing import NamedTuple


class Kept(NamedTuple):
    """A profile whose state is kept."""

    partition: int
    key: bytes
    at_s: float
    """Broker time, in seconds, at which it was kept last."""
