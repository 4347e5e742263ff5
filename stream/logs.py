"""Keeps client libraries from filling the log: what they warn of again and again is told sparingly.

A client without its server tries again many times a second, and warns each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

_CLIENTS: Final = frozenset({"aiokafka", "faust", "mode"})
_EVERY_S: Final = 60.0
_MOST_KINDS: Final = 1_000


class Throttle(logging.Filter):
    """Passes a client's warning once a minute, whatever its text is filled in with.

    The next one that passes says how many were left out before it. What isn't a client's, or is
    less than a warning, always passes.

    Args:
        every_s: time between two of a kind, in seconds.
        clock: seconds since any fixed point.
    """

    def __init__(self, every_s: float = _EVERY_S, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._told: dict[tuple[str, int, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes."""
        is_client = record.name.partition(".")[0] in _CLIENTS
        if not is_client or record.levelno < logging.WARNING:
            return True
        kind = (record.name, record.levelno, record.msg)
        now_s = self._clock()
        told_s, left_out = self._told.get(kind, (float("-inf"), 0))
        if now_s - told_s < self._every_s:
            self._told[kind] = (told_s, left_out + 1)
            return False
        if len(self._told) >= _MOST_KINDS:
            # Some put what they tell of into the text itself, which makes each a kind of its own.
            self._told.clear()
        self._told[kind] = (now_s, 0)
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out:,} like it were left out before)"
            record.args = ()
        return True


def throttle_clients() -> None:
    """Throttle what client libraries write through the handlers of the root logger."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(Throttle())


def mute_clients() -> None:
    """Keep client libraries from writing to the terminal where no log was set up.

    A command tells what failed itself.
    """
    for name in _CLIENTS:
        logging.getLogger(name).addHandler(logging.NullHandler())
