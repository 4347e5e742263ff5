"""What the pipeline asks: the live version answers, the shadow is offered its share, all forget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from stream.domain.prediction import Intents
from stream.domain.window import WindowBatch
from stream.exceptions import VersionNotServedError
from stream.inference.client import InferenceClient
from stream.inference.release import Release
from stream.inference.shadow import Shadow


class ReleasedInference:
    """Asks the version that is live when a batch begins, for all of the batch.

    Args:
        client: of the model server.
        shadow: compares what the release's shadow answers.
        release: tells the release of now.
    """

    def __init__(
        self, client: InferenceClient, shadow: Shadow, release: Callable[[], Release]
    ) -> None:
        self._client = client
        self._shadow = shadow
        self._release = release

    async def infer(self, batch: WindowBatch) -> Intents:
        """The intents of every profile of `batch`, in its order, all of one version.

        Raises:
            InferenceUnavailableError: when a retry may help, which asks the version that is live
                by then.
            InferenceRefusedError: when it can't.
        """
        release = self._release()
        intents = await self._client.infer(batch, release.live)
        self._shadow.offer(release, batch, intents)
        return intents

    async def forget(self, profile_hash: NDArray[np.int64]) -> None:
        """Have all versions of the release drop what they keep of profiles.

        Args:
            profile_hash: `[B]` hashes of their ids.

        Raises:
            InferenceUnavailableError: when a retry may help.
            InferenceRefusedError: when it can't.
        """
        # What is yet to be compared would fill a cache again.
        await self._shadow.settle()
        release = self._release()
        await self._client.forget(profile_hash, release.live)
        for version in {release.shadow, release.previous} - {"", release.live}:
            with suppress(VersionNotServedError):  # it keeps nothing
                await self._client.forget(profile_hash, version)
