"""The parts of a hidden intent, and their labels.

They are those that the simulator was made for: a head or an action that came to the product since
is neither intended nor taken by its members, and what it makes stays as it was frozen.
"""

from __future__ import annotations

from typing import Final

from stream.domain import labels

ACTIONS: Final = labels.ACTIONS[:7]

PARTS: Final = {
    "action": ACTIONS,
    "genre": labels.GENRES,
    "kind": labels.KINDS,
    "release_age": labels.RELEASE_AGES,
}
"""By the name of the head that is to tell it."""
