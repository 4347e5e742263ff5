"""Notices a worker that silently stopped: the ends of its partitions move on, its commits don't.

Kafka consumers can stop fetching without an error. The worker's own counters can't tell that from
an idle topic, so this compares committed with end offsets through a client of its own. A worker
that declares back-pressure is not ready, but it is alive; so is one that reads states back and gets
on with it, and one that can't be judged because Kafka doesn't answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from time import monotonic
from typing import Protocol

from mode import Service

from stream import metrics
from stream.exceptions import BrokerUnavailable
from stream.kafka import answering
from stream.lag import LagReader, PartitionLag
from stream.reachability import Reachability
from stream.settings import Settings
from stream.topics import CONSUMED_TOPICS

_INTERVAL_S = 5.0
_PATIENCE_S = 5.0
_STALLED_AFTER_S = 60.0


class Stalls:
    """Remembers since when each partition has had lag without a commit.

    Args:
        after_s: how long that may last.
    """

    def __init__(self, after_s: float = _STALLED_AFTER_S) -> None:
        self._after_s = after_s
        self._since: dict[tuple[str, int], tuple[int | None, float]] = {}

    def observe(self, lags: Iterable[PartitionLag], now_s: float, *, is_held: bool) -> None:
        """Take in the current lags; while the worker is held by back-pressure nothing counts."""
        still: dict[tuple[str, int], tuple[int | None, float]] = {}
        for lag in lags:
            if lag.lag == 0 or is_held:
                continue
            place = (lag.topic, lag.partition)
            committed, since_s = self._since.get(place, (lag.committed, now_s))
            still[place] = (lag.committed, since_s if committed == lag.committed else now_s)
        self._since = still

    def stalled(self, now_s: float) -> list[tuple[str, int]]:
        """Topics and partitions that have had lag without a commit for too long."""
        return sorted(
            place for place, (_, since_s) in self._since.items() if now_s - since_s > self._after_s
        )


class Worker(Protocol):
    """The worker, as far as the watchdog knows it."""

    def is_held(self) -> bool:
        """Whether it holds a batch because a dependency is down."""

    def owned(self) -> Set[tuple[str, int]]:
        """Topic and partition of all that it consumes; others are other workers' business."""

    def recovering(self) -> list[PartitionLag] | None:
        """How far it is with each changelog, while it reads states back; else None."""


class Watchdog(Service):
    """Reads the group's lag every few seconds: for the metrics, and to tell a stalled worker.

    `kafka` says whether that was possible the last time.
    """

    def __init__(self, config: Settings, worker: Worker) -> None:
        self._config = config
        self._worker = worker
        self._stalls = Stalls()
        self.kafka = Reachability()
        super().__init__()

    def is_alive(self) -> bool:
        """False when a partition has had lag without a commit for too long."""
        return not self._stalls.stalled(monotonic())

    @Service.task
    async def _watch(self) -> None:
        group = self._config.consumer_group
        topics = [self._config.topic(name) for name in CONSUMED_TOPICS]
        while not self.should_stop:
            try:
                async with LagReader(self._config) as reader:
                    while not self.should_stop:
                        async with answering(self._config, within_s=_PATIENCE_S):
                            lags = await reader.read(group, topics)
                        self.kafka.answered()
                        self.judge(lags, monotonic())
                        for lag in lags:
                            place = (group, lag.topic, str(lag.partition))
                            metrics.LAG.labels(*place).set(lag.lag)
                        await self.sleep(_INTERVAL_S)
            except BrokerUnavailable as error:
                self.kafka.failed(error)
                self.judge([], monotonic())
                await self.sleep(_INTERVAL_S)

    def judge(self, lags: Iterable[PartitionLag], now_s: float) -> None:
        """Take in the group's lags as they are now."""
        own = self._worker.recovering()
        if own is None:
            owned = self._worker.owned()
            own = [lag for lag in lags if (lag.topic, lag.partition) in owned]
        self._stalls.observe(own, now_s, is_held=self._worker.is_held())
