"""Where a benchmark keeps what it measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from stream.home import HOME


def result_file(name: str, doc: str | None, file: str = "") -> Path:
    """The file for the result of `python -m lab.bench.<name>`, by its command line.

    Args:
        name: the module, and the file's name unless `file` or `--out` says otherwise.
        doc: the module's own documentation, which `--help` prints.
        file: the file's name, where several modules share one.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m lab.bench.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    file = f"{file or name}.json"
    default = HOME / "docs" / "results" / file
    parser.add_argument(
        "--out", type=Path, default=default, help=f"the result's file, docs/results/{file}"
    )
    out: Path = parser.parse_args().out
    return out


def keep(result: dict[str, Any], out: Path) -> None:
    """Write the result as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


def keep_rows(rows: list[dict[str, Any]], out: Path) -> None:
    """Write rows into a file that several benchmarks share; one measured before is replaced.

    Args:
        rows: With `what`, `engine` and `events`, which tell a row, and what was measured.
        out: A JSON list of such rows; made when absent.
    """

    def told(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["what"], row["engine"], row["events"]

    before = json.loads(out.read_text()) if out.exists() else []
    new = {told(row) for row in rows}
    kept = [row for row in before if told(row) not in new]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(kept + rows, indent=2) + "\n")
