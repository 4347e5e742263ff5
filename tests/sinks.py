"""What tests of running sinks share: start one, publish rows, read back what has landed."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, Final

import pyarrow.parquet as pq

from features.definitions import intent_features
from features.offline.landing import SCHEMA
from features.registry.places import source_folder
from stream.domain.feature_row import Erasure, IntentRow
from stream.domain.topics import INTENT_FEATURES
from stream.kafka.lag import LagReader
from stream.kafka.outbox import Outbox, Outgoing
from stream.settings import Settings
from stream.worker.sink import group_of, run_sink
from tests.unit.features.samples import to_json
from tests.workers import http, until

_processes: Final = multiprocessing.get_context("forkserver")
# Importing Feast takes seconds, so it is done once for all sinks.
_processes.set_forkserver_preload(["stream.worker.sink"])


def run(settings: Settings) -> None:
    """The sink's process."""
    asyncio.run(run_sink(settings))


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that calls `target`."""
    process = _processes.Process(target=target, args=arguments)
    process.start()
    return process


def answer(settings: Settings, path: str) -> tuple[int, str]:
    """Status and text of the sink's HTTP endpoint."""
    return http(settings.model_copy(update={"metrics_port": settings.sink_port}), path)


def is_ready(settings: Settings) -> bool:
    """Whether the sink says that it lands rows."""
    return answer(settings, "/ready")[0] == 200


@contextmanager
def sink(settings: Settings) -> Iterator[BaseProcess]:
    """A running sink that is ready; terminated at the end."""
    process = start(run, settings)
    try:
        until(lambda: is_ready(settings), "a ready sink")
        yield process
    finally:
        process.terminate()
        assert ended(process) in (0, -signal.SIGKILL)


def ended(process: BaseProcess) -> int | None:
    """What a sink's process ends with, once it does."""
    until(lambda: process.exitcode is not None, "the end of a sink")
    return process.exitcode


def publish(settings: Settings, rows: Sequence[IntentRow | bytes | Outgoing | None]) -> None:
    """Write rows, raw values, or whole records, to the topic; a profile's to one partition."""

    def outgoing(row: IntentRow | bytes | Outgoing | None) -> Outgoing:
        if isinstance(row, Outgoing):
            return row
        if isinstance(row, IntentRow):
            partition = _partition(settings, row.profile_id)
            return Outgoing(INTENT_FEATURES, partition, row.profile_id.encode(), to_json(row))
        return Outgoing(INTENT_FEATURES, 0, b"raw", row)

    async def deliver() -> None:
        async with Outbox(settings) as outbox:
            await outbox.deliver(map(outgoing, rows))

    asyncio.run(deliver())


def tombstone(settings: Settings, profile_id: str, erasure: Erasure) -> Outgoing:
    """What a worker writes behind the rows of a profile that it has erased."""
    place = _partition(settings, profile_id)
    key, headers = profile_id.encode(), erasure.to_headers()
    return Outgoing(INTENT_FEATURES, place, key, None, headers)


def _partition(settings: Settings, profile_id: str) -> int:
    return sum(profile_id.encode()) % settings.topic_partitions


def unlanded(settings: Settings) -> int:
    """The lag of the sink's group."""

    async def read() -> int:
        async with LagReader(settings) as reader:
            lags = await reader.read(group_of(settings), [settings.topic(INTENT_FEATURES)])
            return sum(lag.lag for lag in lags)

    return asyncio.run(read())


def landed(settings: Settings) -> list[dict[str, Any]]:
    """All rows in the offline store."""
    folder = source_folder(settings, intent_features)
    rows: list[dict[str, Any]] = pq.read_table(folder, schema=SCHEMA).to_pylist()
    return rows


Key = tuple[str, int, str, int]


def keys(settings: Settings) -> list[Key]:
    """Profile, sequence number, model version and creation in ms of all landed rows, sorted."""
    return sorted(
        (
            row["profile_id"],
            row["sequence_no"],
            row["model_version"],
            round(row["created_timestamp"].timestamp() * 1000),
        )
        for row in landed(settings)
    )


def keys_of(rows: Sequence[IntentRow]) -> list[Key]:
    """The same of published rows, the first publication of each, sorted."""
    first: dict[tuple[str, int, str], int] = {}
    for row in rows:
        first.setdefault((row.profile_id, row.sequence_no, row.model_version), row.published_at_ms)
    return sorted((*key, created) for key, created in first.items())
