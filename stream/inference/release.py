"""Which model version answers: one record that all workers follow.

It stands on the compacted topic `intent-model`, in partition 0, under the model's name. A worker
reads the topic to its end before it takes events, and follows it from then on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stream import metrics
from stream.domain import topics
from stream.domain.version_labels import BUILT_IN, VersionLabels
from stream.exceptions import BrokerError
from stream.kafka.connection import answering, client_options, running, start
from stream.kafka.consumer import Consumer
from stream.settings import Settings

_log = logging.getLogger(__name__)
_PARTITION: Final = 0
_PATIENCE_MS: Final = 1000
_RETRY_S: Final = 1.0
_READ_S: Final = 60.0


class Release(BaseModel):
    """The versions in service."""

    model_config = ConfigDict(frozen=True)

    live: str
    """Answers; empty takes Triton's default, where nothing was published yet."""

    previous: str = ""
    """Was live before and is kept loaded, for a rollback."""

    shadow: str = ""
    """Answers a share of the traffic too; its answers are compared, never published."""

    shadow_share: float = Field(0.0, ge=0, le=1)
    """The share of the profiles that are shadowed, 0 to 1."""

    labels: Mapping[str, VersionLabels] = Field(default_factory=dict)
    """The labels of versions that have their own."""

    def labels_of(self, version: str) -> VersionLabels:
        """The labels of one of the versions."""
        return self.labels.get(version, BUILT_IN)


async def _nothing(_: str) -> None:
    """There is nothing to do before a version goes live."""


class ReleaseFollower:
    """Holds the release of now; where a version is pinned, that one, whatever else the topic says.

    Args:
        settings: where Kafka is, and which version is pinned.
        before_live: awaited with the version that is live on entering, and with each other before
            it is.

    Raises:
        BrokerUnavailableError: on entering, when Kafka does not answer.
    """

    def __init__(
        self, settings: Settings, before_live: Callable[[str], Awaitable[None]] = _nothing
    ) -> None:
        self._settings = settings
        self._before_live = before_live
        self._place = TopicPartition(settings.topic(topics.MODEL_RELEASES), _PARTITION)
        self._consumer = Consumer(**client_options(settings), auto_offset_reset="earliest")
        self._following: asyncio.Task[None] | None = None
        self.current = Release(live=settings.model_version)
        self.since_s: float
        """Since when it is in force, in seconds since the epoch, or a little before."""
        self._take(self.current, time.time())

    async def __aenter__(self) -> Self:
        await start(self._consumer, self._settings)
        try:
            async with answering(self._settings, within_s=_READ_S):
                await self._read_to_end()
        except BrokerError:
            await self._consumer.stop()
            raise
        await self._before_live(self.current.live)
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await self._consumer.stop()

    async def _read_to_end(self) -> None:
        self._consumer.assign([self._place])
        end = (await self._consumer.end_offsets([self._place]))[self._place]
        async for record in self._consumer.until({self._place: end}):
            if release := self._release_in(record):
                self._take(release, record.timestamp / 1000)

    async def _follow(self) -> None:
        while True:
            try:
                await self._read()
            except KafkaError as error:
                _log.warning("The model release can't be read, %s stays: %r", self.current, error)
                await asyncio.sleep(_RETRY_S)

    async def _read(self) -> None:
        for records in (await self._consumer.getmany(timeout_ms=_PATIENCE_MS)).values():
            for record in records:
                if release := self._release_in(record):
                    if release.live != self.current.live:
                        await self._before_live(release.live)
                    self._take(release, record.timestamp / 1000)

    def _release_in(self, record: Any) -> Release | None:
        """What a record says is to be the release here, if anything."""
        if record.key != self._settings.model_name.encode() or not record.value:
            return None
        try:
            release = Release.model_validate_json(record.value)
        except ValidationError as error:
            _log.error("Not a model release, %s stays: %s", self.current, error)
            return None
        if pinned := self._settings.model_version:
            return Release(live=pinned, labels=release.labels)
        return release

    def _take(self, release: Release, since_s: float) -> None:
        self.since_s = since_s
        # A version that is in service no more may have answered what is still to be published.
        labels = {**self.current.labels, **release.labels}
        before, self.current = self.current, release.model_copy(update={"labels": labels})
        for one, of_it, share in ((before, 0, 0.0), (release, 1, release.shadow_share)):
            if one.live:
                metrics.MODEL_RELEASE.labels("live", one.live).set(of_it)
            if one.shadow:
                metrics.MODEL_RELEASE.labels("shadow", one.shadow).set(share)


async def read_release(settings: Settings) -> Release:
    """The published release of now; its `live` is empty where nothing was published yet.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    unpinned = settings.model_copy(update={"model_version": ""})
    async with ReleaseFollower(unpinned) as follower:
        return follower.current


async def write_release(settings: Settings, release: Release) -> None:
    """Make it the release of now; returns when the broker has it.

    Raises:
        BrokerUnavailableError: when Kafka does not take it.
    """
    async with (
        running(AIOKafkaProducer, settings, enable_idempotence=True) as producer,
        answering(settings),
    ):
        await producer.send_and_wait(
            settings.topic(topics.MODEL_RELEASES),
            release.model_dump_json().encode(),
            key=settings.model_name.encode(),
            partition=_PARTITION,
        )
