"""The folder that Feast's own command line works in, for whoever has no checkout."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from stream.exceptions import RepositoryExistsError

if TYPE_CHECKING:
    from pathlib import Path

_DEFINITIONS: Final = '''\
"""The definitions of the release that is installed; `feast apply` registers them."""

from features.definitions import *  # noqa: F403
'''


def write_repository(folder: Path) -> None:
    """Write the configurations of the feature store, and a module that names our definitions.

    Raises:
        RepositoryExistsError: when the folder holds one already; nothing is written then.
    """
    content = {"definitions.py": _DEFINITIONS}
    for one in files("features").iterdir():
        if one.name.endswith(".yaml"):
            content[one.name] = one.read_text()
    if held := sorted(name for name in content if (folder / name).exists()):
        raise RepositoryExistsError(
            f"{folder} holds {', '.join(held)} already; name another folder, or remove them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (folder / name).write_text(text)
