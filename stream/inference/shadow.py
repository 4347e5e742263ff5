"""A candidate version answers a share of the traffic beside the live one, where nobody sees it.

The live path waits for none of it. One comparison runs at a time, on a client of its own; rows are
gathered for it, because a request for each batch would take much of the server from live ones, and
what is more than a request takes isn't compared. Both answers, with how far they are apart, go to
the topic `intent-shadow`, in partition 0.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from stream import metrics
from stream.domain import topics
from stream.domain.divergence import Divergence, divergence
from stream.domain.heads import HEADS
from stream.domain.prediction import Intents, joined
from stream.domain.window import WindowBatch, joined_windows
from stream.exceptions import BrokerError, InferenceError
from stream.inference.backend import VersionedBackend
from stream.inference.release import Release
from stream.kafka.outbox import Outgoing, RecordProducer

PARTITION: Final = 0

_log = logging.getLogger(__name__)
_LOGGED: Final = (*(head.probs for head in HEADS), "next_title_hash", "next_title_score")
_PARTS: Final = 1 << 32
"""Profiles are dealt into so many parts by their hash; the first of them are shadowed."""


class Shadow:
    """Compares the shadow's answers with the live ones.

    Args:
        client: the shadow's own, so that the live path never waits for its turn.
        outbox: where comparisons go.
        most: rows of a comparison.
        gather_s: for how long they are gathered.
    """

    def __init__(
        self, client: VersionedBackend, outbox: RecordProducer, most: int, gather_s: float = 0.1
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._most = most
        self._gather_s = gather_s
        self._gathered: dict[str, list[tuple[WindowBatch, Intents]]] = {}
        self._release = Release(live="")
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
        self._release = release
        if not release.shadow:
            return
        rows = np.flatnonzero(is_shadowed(batch.profile_hash[:, 0], release.shadow_share))
        waiting = sum(len(one) for some in self._gathered.values() for one, _ in some)
        chosen = rows[: self._most - waiting]
        metrics.SHADOW_ROWS.labels("skipped").inc(len(rows) - len(chosen))
        if len(chosen):
            gathered = self._gathered.setdefault(release.shadow, [])
            gathered.append((batch.rows(chosen), live.rows(chosen)))
            if self._comparison is None or self._comparison.done():
                self._comparison = asyncio.create_task(self._compare_gathered())

    async def settle(self) -> None:
        """Return when all that was offered is compared."""
        if self._comparison is not None:
            await asyncio.wait([self._comparison])

    async def _compare_gathered(self) -> None:
        while self._gathered:
            await asyncio.sleep(self._gather_s)
            gathered, self._gathered = self._gathered, {}
            for version, offers in gathered.items():
                batches, answers = zip(*offers, strict=True)
                await self._compare(version, joined_windows(batches), joined(answers))

    async def _compare(self, version: str, batch: WindowBatch, live: Intents) -> None:
        try:
            shadow = await self._client.infer(batch, version)
        except InferenceError as error:
            _log.warning("Version %s did not answer as the shadow: %s", version, error)
            metrics.SHADOW_ROWS.labels("failed").inc(len(batch))
            await self._report([{"failed": len(batch), "version": version, "error": str(error)}])
            return
        labels_of = self._release.labels_of
        apart = divergence(live, shadow, (labels_of(live.model_version[0]), labels_of(version)))
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
        except BrokerError as error:
            _log.warning("%d comparisons were not written: %s", len(records), error)


def is_shadowed(profile_hash: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which profiles are shadowed at this share; always the same, so that caches get warm."""
    return profile_hash.view(np.uint64) % np.uint64(_PARTS) < share * _PARTS


def _comparisons(
    batch: WindowBatch, live: Intents, shadow: Intents, apart: Divergence
) -> Iterator[dict[str, Any]]:
    said, said_by_shadow = live.tensors(), shadow.tensors()
    for row in range(len(batch)):
        yield {
            "profile_hash": batch.profile_hash[row, 0],
            "sequence_no": batch.sequence_no[row, 0],
            "live": {"model_version": live.model_version[row]}
            | {name: said[name][row] for name in _LOGGED},
            "shadow": {"model_version": shadow.model_version[row]}
            | {name: said_by_shadow[name][row] for name in _LOGGED},
            "heads": {head: values[row] for head, values in apart.heads.items()},
            "overlap": apart.overlap[row],
        }
