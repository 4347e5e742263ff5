"""What commands print while they work: each step, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.progress import Progress

from stream.plain_text import PlainConsole

console: Final = PlainConsole()


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print `name` when the block starts, and its seconds when it ends without an error."""
    console.print(f"{name} …")
    began = time.perf_counter()
    yield
    console.print(f"{name}: {time.perf_counter() - began:.1f} s")


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs; call what it gives with how many of `total` are done."""
    with Progress(console=console) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)
        # Who tells how far it is need not have told the end.
        bar.update(task, completed=total)
