"""Loops over packed records, compiled where numpy would take a pass and an array for every step.

What numba compiles is kept beside the source, or in the user's cache where that can't be written
(`NUMBA_CACHE_DIR` names another place), so that one process compiles for all that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

_Loop = TypeVar("_Loop", bound=Callable[..., Any])


def compiled(loop: _Loop) -> _Loop:
    """`loop`, compiled when it is first called; it holds no lock of Python's meanwhile."""
    made: _Loop = njit(loop, cache=True, nogil=True, error_model="numpy")
    return made
