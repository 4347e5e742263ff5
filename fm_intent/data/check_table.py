"""A check's findings, as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fm_intent.data.checking import Check

_COLORS: Final = {"error": "red", "warning": "yellow", "ok": "green"}


def table(check: Check) -> Table:
    """What was found, the worst first; examples below each."""
    sizes = ", ".join(f"{count:,} {name}" for name, count in check.sizes.items())
    made = Table(title=f"Check of {check.source}: {check.level}", caption=sizes)
    made.add_column("fault")
    made.add_column("count", justify="right")
    made.add_column("share", justify="right")
    made.add_column("what, and what to do", ratio=1)
    for level, color in _COLORS.items():
        for one in check.findings:
            if one.count and one.level == level:
                told = [f"of {one.of:,} {one.fault.of} they {one.fault.what}"]
                if level != "ok":
                    told += [one.fault.advice, *map(_example, one.examples)]
                name = Text.assemble((level, color), "\n", one.fault.name)
                made.add_row(name, f"{one.count:,}", f"{one.share:.2%}", "\n".join(told))
    return made


def _example(example: dict[str, Any]) -> str:
    return "· " + " ".join(f"{name}={value}" for name, value in example.items())
