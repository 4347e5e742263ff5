"""Undoes a failed publication, and has versions forget whoever was erased during one."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import numpy as np
from aiokafka import TopicPartition

from intentstream.served_versions import ServedModels
from stream.domain import topics
from stream.domain.events import erased_profile
from stream.domain.labels import hash64
from stream.exceptions import BadRecordError, IntentstreamError, VersionNotServedError
from stream.inference.client import InferenceClient
from stream.inference.release import Release, read_release, write_release
from stream.kafka.connection import running
from stream.kafka.consumer import Consumer
from stream.kafka.lag import LagReader
from stream.settings import Settings

_log = logging.getLogger(__name__)


@asynccontextmanager
async def undone_on_failure(
    settings: Settings, release: Release, served: ServedModels
) -> AsyncIterator[None]:
    """Puts the release and the served versions back when the block fails or is cancelled.

    What can't be put back is logged: the error that goes on is the block's.

    Args:
        settings: where Kafka is.
        release: that is in force before the block.
        served: what Triton serves; the release's previous version stays at hand.
    """
    versions = served.versions()
    try:
        yield
    except BaseException:
        with _logged("The release that was in force is not put back"):
            if await read_release(settings) != release:
                await write_release(settings, release)
        with _logged("The versions that were served are not put back"):
            if versions or served.versions():
                served.serve(*versions, keep=[release.previous])
        raise


@asynccontextmanager
async def erasures_followed(settings: Settings, versions: Iterable[str]) -> AsyncIterator[None]:
    """Has versions forget, when the block ends, whose erasure wasn't done when it began.

    The block asks them about windows from before an erasure, maybe after the worker has done it.
    """
    topic = settings.topic(topics.PROFILE_ERASURES)
    async with LagReader(settings) as reader:
        # What the worker hasn't acknowledged yet may still be in the changelog.
        since = {
            TopicPartition(topic, one.partition): max(one.committed or 0, one.start)
            for one in await reader.read(settings.consumer_group, [topic])
            if one.topic == topic
        }
    try:
        yield
    except BaseException:
        with _logged("What was erased meanwhile may still be in the model's cache"):
            await _forget_erased(settings, since, versions)
        raise
    await _forget_erased(settings, since, versions)


async def _forget_erased(
    settings: Settings, since: dict[TopicPartition, int], versions: Iterable[str]
) -> None:
    """Have versions forget the profiles that the topic of erasures names from these offsets on."""
    erased: set[int] = set()
    async with running(Consumer, settings, auto_offset_reset="earliest") as consumer:
        for place, end in (await consumer.end_offsets(list(since))).items():
            consumer.assign([place])
            consumer.seek(place, since[place])
            async for record in consumer.until({place: end}):
                with suppress(BadRecordError):  # the worker makes it a dead letter
                    erased.add(hash64(erased_profile(record.key)))
    if not erased:
        return
    async with InferenceClient.patient(settings) as client:
        for version in versions:
            with suppress(VersionNotServedError):  # it keeps nothing
                await client.forget(np.array([*erased], np.int64), version)


@contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except IntentstreamError as error:
        _log.error("%s: %s", what, error)
