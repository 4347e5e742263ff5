"""Feast without the type checks that it has typeguard write into its classes."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder


def switch_off() -> None:
    """Have Feast, if it isn't imported yet, leave its classes as they are when it is.

    That is a third of its import. Typeguard says that the checks aren't for production; `python -O`
    would switch them off as well, and our assertions with them. It is so for all that this process
    imports afterwards, so it is for programs of ours to call, not for a reader in somebody else's.
    """
    sys.meta_path.insert(0, _BeforeFeast())


class _BeforeFeast(MetaPathFinder):
    """Finds nothing; sees Feast's import come, as typeguard's takes a while and few need it."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "feast":
            import typeguard

            typeguard.typechecked = lambda target: target  # type: ignore[assignment]
            sys.meta_path.remove(self)
