"""Loops over packed records, compiled where numpy would take a pass and an array for every step.

What numba compiles is kept beside the source, or in the user's cache where that can't be written
(`NUMBA_CACHE_DIR` names another place), so that one process compiles for all that follow. numba
asks whether a loop's own file has changed, and not those of the loops that it calls: so the folder
goes by the digest of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from numba import config, njit

_Loop = TypeVar("_Loop", bound=Callable[..., Any])

_HERE: Final = Path(__file__).parent


def folder_of(sources: Iterable[Path]) -> str:
    """The name of the folder for what is compiled of these files."""
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.read_bytes())
    return f"compiled-{digest.hexdigest()[:16]}"


def _place() -> str:
    """Where to keep what is compiled; empty where nothing may be written."""
    name = folder_of(_HERE.glob("*.py"))
    told: str = config.CACHE_DIR
    places = [Path(told)] if told else [_HERE / "__pycache__", Path.home() / ".cache/intentstream"]
    for place in places:
        try:
            (place / name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        return str(place / name)
    return ""


config.CACHE_DIR = _place()

_compiling: Final = partial(njit, nogil=True, error_model="numpy")


def compiled(loop: _Loop) -> _Loop:
    """`loop`, compiled when it is first called; it holds no lock of Python's meanwhile."""
    made: _Loop = _compiling(loop, cache=bool(config.CACHE_DIR))
    return made
