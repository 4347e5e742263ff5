"""A sink that kills itself at one boundary of its first landing, or of its first rewriting."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Final

from stream.kafka.consumer import Consumer
from stream.settings import Settings
from tests import sinks

BOUNDARIES: Final = ("written", "synced", "renamed", "landed", "committed")
"""Before a file is synced, before it is renamed, after the first of several is, before the offsets
are committed, and after that."""

REWRITING: Final = ("anew", "in place")
"""Before the file without an erased profile's rows gets its name, and after that."""


def run(settings: Settings, boundary: str) -> None:
    """Run a sink that gets SIGKILL at the boundary."""

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    rename, commit = Path.rename, Consumer.commit

    def rename_and_die(self: Path, target: Path) -> None:
        rename(self, target)
        die()

    def rename_anew(self: Path, target: Path) -> None:
        if self.suffix == ".anew" and boundary == "anew":
            die()
        rename(self, target)
        if self.suffix == ".anew":
            die()

    async def commit_and_die(self: Consumer, offsets: Any) -> None:
        await commit(self, offsets)
        die()

    owner, name, replacement = {
        "written": (os, "fsync", die),
        "synced": (Path, "rename", die),
        "renamed": (Path, "rename", rename_and_die),
        "landed": (Consumer, "commit", die),
        "committed": (Consumer, "commit", commit_and_die),
        "anew": (Path, "rename", rename_anew),
        "in place": (Path, "rename", rename_anew),
    }[boundary]
    setattr(owner, name, replacement)
    sinks.run(settings)
