"""SIGTERM as an exception, so that context managers clean up before the process ends."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@contextmanager
def unwind_on_sigterm() -> Iterator[None]:
    """Raises `SystemExit(143)` in the main thread on SIGTERM, as Ctrl-C raises KeyboardInterrupt.

    Raises:
        ValueError: when entered outside the main thread.
    """
    previous = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
