"""Gives each profile its model server, always the same one, so that its cache is warm there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.domain.labels import hash64

_MIX: Final = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST_SHIFT: Final = np.uint64(31)


def placed(profile_hash: NDArray[np.int64], servers: Sequence[str]) -> NDArray[np.intp]:
    """The server of each profile, by rendezvous hashing.

    A profile goes where the hash of the two is highest. So when a server goes, its profiles alone
    move, and back when it returns; and every worker, knowing nothing of the others, agrees.

    Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (IEEE/ACM
    Transactions on Networking 6(1), 1998); the bits are mixed by the finaliser of splitmix64
    (Steele, Lea and Flood, OOPSLA 2014).

    Args:
        profile_hash: `[B]` hashes of profile ids.
        servers: their addresses, at least one, in any order.

    Returns:
        `[B]` indices into `servers`.
    """
    names = np.array([hash64(server) for server in servers], np.int64).view(np.uint64)
    weight = np.ascontiguousarray(profile_hash).view(np.uint64)[:, None] ^ names
    for shift, factor in _MIX:
        weight = (weight ^ (weight >> shift)) * factor
    weight ^= weight >> _LAST_SHIFT
    highest: NDArray[np.intp] = weight.argmax(1)
    return highest
