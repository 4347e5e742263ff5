"""What commands print while they work: each step, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

console: Final = Console()


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print `name` when the block starts, and its seconds when it ends without an error."""
    console.print(f"{name} …")
    began = time.perf_counter()
    yield
    console.print(f"{name}: {time.perf_counter() - began:.1f} s")
