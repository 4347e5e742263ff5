"""Where a benchmark keeps what it measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from stream.home import HOME


def result_file(name: str, doc: str | None) -> Path:
    """The file for the result of `python -m lab.bench.<name>`, by its command line.

    Args:
        name: the module, and the file's name unless `--out` says otherwise.
        doc: the module's own documentation, which `--help` prints.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m lab.bench.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = HOME / "docs" / "results" / f"{name}.json"
    parser.add_argument(
        "--out", type=Path, default=default, help=f"the result's file, docs/results/{name}.json"
    )
    out: Path = parser.parse_args().out
    return out


def keep(result: dict[str, Any], out: Path) -> None:
    """Write the result as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
