"""What answers for windows, as its callers know it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream.domain.prediction import Intents
from stream.domain.window import WindowBatch


class InferenceBackend(Protocol):
    """Answers by the version that is live."""

    async def infer(self, batch: WindowBatch) -> Intents:
        """The intents of every profile of the batch, in its order."""

    async def forget(self, profile_hash: NDArray[np.int64]) -> None:
        """Drop whatever is kept of profiles, `[B]` hashes of their ids."""


class VersionedBackend(Protocol):
    """Answers by the version that is asked."""

    async def infer(self, batch: WindowBatch, version: str) -> Intents:
        """The intents of every profile of the batch, in its order, by this version."""
