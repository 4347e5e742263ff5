"""Registers the definitions in a registry: python -m features.registry REGISTRY OFFLINE_DIR."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from features.registry import typechecks
from stream.exceptions import IntentstreamError
from stream.settings import settings

_NICENESS: Final = 5
"""Importing Feast takes seconds of CPU, and a worker's events go first."""


def main(registry: Path, offline_dir: Path) -> None:
    """Register them; an error of ours ends the process with its message."""
    os.nice(_NICENESS)
    typechecks.switch_off()
    from features.registry.store import apply

    where = {"feature_registry": registry, "offline_dir": offline_dir}
    try:
        apply(settings().model_copy(update=where))
    except IntentstreamError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
