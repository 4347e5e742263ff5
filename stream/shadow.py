"""A candidate version answers a share of the traffic beside the live one, where nobody sees it.

The live path waits for none of it: one comparison runs at a time, on a client of its own, and what
comes meanwhile isn't compared. Both answers, with how far they are apart, go to the topic
`intent-shadow`, in partition 0.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from stream import metrics, topics
from stream.divergence import HEADS, Divergence, divergence
from stream.exceptions import BrokerUnavailable, InferenceRefused, InferenceUnavailable
from stream.intents import Intents
from stream.outbox import Outgoing
from stream.release import Release
from stream.window import WindowBatch

PARTITION: Final = 0

_log = logging.getLogger(__name__)
_LOGGED: Final = ("model_version", *HEADS.values(), "next_title_hash", "next_title_score")
_PARTS: Final = 1 << 32
"""Profiles are dealt into so many parts by their hash; the first of them are shadowed."""


class Infers(Protocol):
    """The inference client, as far as the shadow knows it."""

    async def infer(self, batch: WindowBatch, version: str) -> Intents:
        """The intents of every profile of the batch, by this version."""


class Delivers(Protocol):
    """The outbox, as far as the shadow knows it."""

    async def deliver(self, records: Sequence[Outgoing]) -> None:
        """Write records; return when the broker has them all."""


class Shadow:
    """Compares the shadow's answers with the live ones.

    Args:
        client: the shadow's own, so that the live path never waits for its turn.
        outbox: where comparisons go.
        most: rows of a comparison.
    """

    def __init__(self, client: Infers, outbox: Delivers, most: int) -> None:
        self._client = client
        self._outbox = outbox
        self._most = most
        self._comparison: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._comparison is not None:
            self._comparison.cancel()
            with suppress(asyncio.CancelledError):
                await self._comparison

    def offer(self, release: Release, batch: WindowBatch, live: Intents) -> None:
        """Have the release's shadow answer its share of `batch` too; returns at once."""
        if not release.shadow:
            return
        rows = np.flatnonzero(is_shadowed(batch.profile_hash[:, 0], release.shadow_share))
        busy = self._comparison is not None and not self._comparison.done()
        chosen = rows[: 0 if busy else self._most]
        metrics.SHADOW_ROWS.labels("skipped").inc(len(rows) - len(chosen))
        if len(chosen):
            self._comparison = asyncio.create_task(
                self._compare(release.shadow, batch.rows(chosen), live.rows(chosen))
            )

    async def _compare(self, version: str, batch: WindowBatch, live: Intents) -> None:
        try:
            shadow = await self._client.infer(batch, version)
        except (InferenceUnavailable, InferenceRefused) as error:
            _log.warning("Version %s did not answer as the shadow: %s", version, error)
            metrics.SHADOW_ROWS.labels("failed").inc(len(batch))
            await self._report([{"failed": len(batch), "version": version, "error": str(error)}])
            return
        apart = divergence(live, shadow)
        metrics.SHADOW_ROWS.labels("compared").inc(len(batch))
        for head, values in apart.heads.items():
            for value in values[~np.isnan(values)].tolist():
                metrics.SHADOW_DIVERGENCE.labels(head).observe(value)
        for value in apart.overlap.tolist():
            metrics.SHADOW_OVERLAP.observe(value)
        await self._report(list(_comparisons(batch, live, shadow, apart)))

    async def _report(self, comparisons: list[dict[str, Any]]) -> None:
        records = [
            Outgoing(
                topics.MODEL_SHADOW,
                PARTITION,
                None,
                orjson.dumps(one, option=orjson.OPT_SERIALIZE_NUMPY),
            )
            for one in comparisons
        ]
        try:
            await self._outbox.deliver(records)
        except BrokerUnavailable as error:
            _log.warning("%d comparisons were not written: %s", len(records), error)


def is_shadowed(profile_hash: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which profiles belong to this share of all: always the same, so that caches get warm."""
    return profile_hash.view(np.uint64) % np.uint64(_PARTS) < share * _PARTS


def _comparisons(
    batch: WindowBatch, live: Intents, shadow: Intents, apart: Divergence
) -> Iterator[dict[str, Any]]:
    for row in range(len(batch)):
        yield {
            "profile_hash": batch.profile_hash[row, 0],
            "sequence_no": batch.sequence_no[row, 0],
            "live": {name: getattr(live, name)[row] for name in _LOGGED},
            "shadow": {name: getattr(shadow, name)[row] for name in _LOGGED},
            "heads": {head: values[row] for head, values in apart.heads.items()},
            "overlap": apart.overlap[row],
        }
