"""Feast without the type checks that it has typeguard write into its classes."""

from __future__ import annotations

import typeguard


def switch_off() -> None:
    """Have Feast, if it isn't imported yet, leave its classes as they are.

    That is a third of its import. Typeguard says that the checks aren't for production; `python -O`
    would switch them off as well, and our assertions with them. It is so for all that this process
    imports afterwards, so it is for programs of ours to call, not for a reader in somebody else's.
    """
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
