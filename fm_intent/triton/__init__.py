"""Triton's configuration of the model, which lies in the model's folder beside its versions."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def configuration(folder: Path) -> dict[str, bytes]:
    """The configuration in a model's folder, by paths in it; where it has none, that of ours."""
    with as_file(files("fm_intent.triton")) as ours:
        return _found(folder) or _found(ours)


def _found(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.pbtxt")}
