"""What the console reads of the running system: metrics endpoints, lag, and who answers at all.

Every reading is by a client of its own and joins no group, so nothing that works waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from features.online.redis_client import RedisAddress, connect_async
from intentstream.console.samples import Samples, named, parsed, seconds_behind
from stream.domain.topics import CONSUMED_TOPICS
from stream.exceptions import BrokerError
from stream.kafka.connection import answering
from stream.kafka.lag import LagReader, PartitionLag

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream.settings import Settings

_log = logging.getLogger(__name__)

EVERY_S: Final = 2.0
"""Between two readings."""

RATE_OVER_S: Final = 10.0
"""Rates and freshness are of so long ago until now, or a little longer."""

REMEMBERED_S: Final = 900.0
"""How far back counters are remembered."""

_KEPT_EVERY_S: Final = 30.0
_PATIENCE_S: Final = 2.0
_LAG_PATIENCE_S: Final = 5.0
_MOST_BYTES: Final = 8 * 1024 * 1024
_ENDS: Final = 900
"""Ends of a partition that are remembered: half an hour of them."""

COUNTERS: Final = (
    "intentstream_events_total",
    "intentstream_dead_letters_total",
    "intentstream_published_rows_total",
    "intentstream_stale_rows_total",
    "intentstream_healed_rows_total",
    "intentstream_log_resets_total",
    "intentstream_retries_total",
    "intentstream_freshness_seconds_bucket",
    "fm_intent_cache_hits_total",
    "fm_intent_cache_misses_total",
    "fm_intent_cache_evictions_total",
)
"""What is remembered for as long as `REMEMBERED_S`."""


@dataclass(frozen=True, slots=True)
class Target:
    """A process with metrics, and how it answered last.

    Attributes:
        job: worker, sink, bridge or triton.
        address: host and port.
        problem: why it doesn't answer; empty where it does.
        is_ready: its own word; None of one that says nothing of it.
    """

    job: str
    address: str
    problem: str = "not asked yet"
    is_ready: bool | None = None


@dataclass(frozen=True, slots=True)
class Lag:
    """Lag of the worker's group on a partition.

    Attributes:
        topic: without the prefix.
        partition: its number.
        records: how many are not committed.
        seconds: since when the log's end is beyond what is committed.
    """

    topic: str
    partition: int
    records: int
    seconds: float


class Readings:
    """Reads, every `EVERY_S`, while it is open.

    Args:
        settings: whom to ask.
        clock: seconds since the epoch.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self.now_s = clock
        """Seconds since the epoch."""
        self.samples: Samples = {}
        """The newest of all targets together."""
        self.targets = [Target(*pair) for pair in targets_of(settings)]
        self.lags: list[Lag] = []
        self.kafka_problem = "not asked yet"
        self.redis_problem: str | None = "not asked yet" if self._has_redis else None
        """None where the online store isn't Redis."""
        self._recent: deque[tuple[float, Samples]] = deque(maxlen=round(RATE_OVER_S / EVERY_S) + 1)
        self._past: deque[tuple[float, Samples]] = deque(
            maxlen=round(REMEMBERED_S / _KEPT_EVERY_S) + 1
        )
        self._ends: dict[tuple[str, int], deque[tuple[float, int]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._keep(self._scrape)),
            asyncio.create_task(self._keep(self._measure_lag)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def next(self) -> None:
        """Wait for the next reading."""
        await self._arrived.wait()

    def before(self) -> tuple[float, Samples]:
        """The time and samples that rates are counted from; those of now where none are older."""
        return self._recent[0] if self._recent else (self.now_s(), self.samples)

    def long_before(self) -> tuple[float, Samples]:
        """The time and the `COUNTERS` of `REMEMBERED_S` ago, or of the first reading after it."""
        return self._past[0] if self._past else (self.now_s(), {})

    @property
    def _has_redis(self) -> bool:
        return self._settings.online_store == "redis"

    async def _keep(self, read: Callable[[], Any]) -> None:
        while True:
            try:
                await read()
            except Exception as error:
                _log.warning("The console reads on after %r", error)
                await asyncio.sleep(EVERY_S)

    async def _scrape(self) -> None:
        address = RedisAddress.of(self._settings)
        async with httpx.AsyncClient(timeout=_PATIENCE_S, trust_env=False) as client:
            redis = connect_async(address) if self._has_redis else None
            try:
                while True:
                    began = time.monotonic()
                    answers = await asyncio.gather(
                        *(_asked(client, target) for target in self.targets)
                    )
                    self.targets = [target for target, _ in answers]
                    if redis is not None:
                        self.redis_problem = await _ping(redis)
                    self.take(dict(chain.from_iterable(one.items() for _, one in answers)))
                    await asyncio.sleep(max(EVERY_S - (time.monotonic() - began), 0.1))
            finally:
                if redis is not None:
                    await redis.aclose()

    def take(self, samples: Samples) -> None:
        """Take in what all targets told."""
        now_s = self.now_s()
        self.samples = samples
        self._recent.append((now_s, samples))
        if not self._past or now_s - self._past[-1][0] >= _KEPT_EVERY_S:
            self._past.append((now_s, named(samples, *COUNTERS)))
        self._arrived.set()
        self._arrived.clear()

    async def _measure_lag(self) -> None:
        settings = self._settings
        topics = [settings.topic(name) for name in CONSUMED_TOPICS]
        try:
            async with LagReader(settings) as reader:
                while True:
                    async with answering(settings, within_s=_LAG_PATIENCE_S):
                        lags = await reader.read(settings.consumer_group, topics)
                    self.kafka_problem = ""
                    self.take_lags(lags)
                    await asyncio.sleep(EVERY_S)
        except BrokerError as error:
            self.kafka_problem = str(error)
            self.lags = []
            self._ends.clear()
            await asyncio.sleep(EVERY_S)

    def take_lags(self, lags: list[PartitionLag]) -> None:
        """Take in where the group is."""
        now_s = self.now_s()
        self.lags = []
        for one in lags:
            ends = self._ends.setdefault((one.topic, one.partition), deque(maxlen=_ENDS))
            ends.append((now_s, one.end))
            self.lags.append(
                Lag(
                    one.topic.removeprefix(self._settings.topic_prefix),
                    one.partition,
                    one.lag,
                    seconds_behind(ends, one.end - one.lag, now_s),
                )
            )


def targets_of(settings: Settings) -> list[tuple[str, str]]:
    """The job and the address of each process whose metrics are read."""
    if not settings.console_targets.strip():
        ports = (settings.metrics_port, settings.sink_port, settings.triton_metrics_port)
        return [
            (job, f"127.0.0.1:{port}")
            for job, port in zip(("worker", "sink", "triton"), ports, strict=True)
        ]
    pairs = (one.strip().partition("=") for one in settings.console_targets.split(","))
    return [(job, address) for job, _, address in pairs if address]


async def _asked(client: httpx.AsyncClient, target: Target) -> tuple[Target, Samples]:
    """A target with how it answers, and its samples."""
    job, address = target.job, target.address
    try:
        samples = parsed(await _text(client, f"http://{address}/metrics"), address)
        ready: bool | None = None
        if job != "triton":
            ready = (await client.get(f"http://{address}/ready")).status_code == 200
    except (httpx.HTTPError, ValueError) as error:
        return Target(job, address, f"{type(error).__name__}: {error}".rstrip(": ")), {}
    return Target(job, address, "", ready), samples


async def _text(client: httpx.AsyncClient, url: str) -> str:
    """The text at an address, if it isn't too much.

    Raises:
        ValueError: when it is.
        httpx.HTTPError: when there is none.
    """
    body = bytearray()
    async with client.stream("GET", url) as answer:
        answer.raise_for_status()
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > _MOST_BYTES:
                raise ValueError(f"{url} tells more than {_MOST_BYTES >> 20} MiB")
    return body.decode(errors="replace")


async def _ping(redis: Any) -> str:
    """Why Redis doesn't answer; empty where it does."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await redis.ping()
    except Exception as error:  # of the library, of the network, of a cluster's topology
        return f"{type(error).__name__}: {error}".rstrip(": ")
    return ""
