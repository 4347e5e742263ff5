"""What other packages add to ours, by entry points."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

_log = logging.getLogger(__name__)


def plugins(group: str) -> Iterator[Any]:
    """What the installed packages name in a group. One that is gone adds nothing, which is told."""
    for entry in entry_points(group=group):
        try:
            yield entry.load()
        except ModuleNotFoundError as error:
            is_gone = error.name and f"{entry.module}.".startswith(f"{error.name}.")
            if not is_gone:
                raise
            _log.warning("what %s adds to %s is left out: it isn't there", entry.module, group)
