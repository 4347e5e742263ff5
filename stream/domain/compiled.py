"""Loops over packed records, compiled where numpy would take a pass and an array for every step.

What numba compiles is kept beside the source, or in the user's cache where that can't be written
(`NUMBA_CACHE_DIR` names another place), so that one process compiles for all that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from numba import njit

_Loop = TypeVar("_Loop", bound=Callable[..., Any])


_compiling: Final = partial(njit, nogil=True, error_model="numpy")


def compiled(loop: _Loop) -> _Loop:
    """`loop`, compiled when it is first called; it holds no lock of Python's meanwhile."""
    try:
        made: _Loop = _compiling(loop, cache=True)
    except RuntimeError:  # no folder may be written, so each process compiles for itself
        made = _compiling(loop, cache=False)
    return made
