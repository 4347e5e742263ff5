"""Registers the definitions in a registry: python -m features.registry REGISTRY OFFLINE_DIR."""

from __future__ import annotations

import sys
from pathlib import Path

from features.registry import typechecks
from stream.exceptions import IntentstreamError
from stream.settings import settings


def main(registry: Path, offline_dir: Path) -> None:
    """Register them; an error of ours ends the process with its message."""
    typechecks.switch_off()
    from features.registry.store import apply

    where = {"feature_registry": registry, "offline_dir": offline_dir}
    try:
        apply(settings().model_copy(update=where))
    except IntentstreamError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
