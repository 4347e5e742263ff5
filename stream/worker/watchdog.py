"""Notices a worker that silently stopped: the ends of its partitions move on, its commits don't.

Kafka consumers can stop fetching without an error. The worker's own counters can't tell that from
an idle topic, so this compares committed with end offsets through a client of its own. A worker
that declares back-pressure is not ready, but it is alive; so is one that reads states back and gets
on with it, and one that can't be judged because Kafka doesn't answer.

It also notices what the worker's consumer can't, or only after minutes: a topic that went away, and
a log that was exchanged for another. The worker ends then, because all that it knows of the
partition is about a log that is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Set
from time import monotonic
from typing import Protocol

from mode import Service

from stream import metrics
from stream.domain.topics import CONSUMED_TOPICS, SESSIONS_CHANGELOG, TOPICS
from stream.exceptions import BrokerError, ChangelogLostError, LogReplacedError
from stream.kafka.connection import answering
from stream.kafka.lag import LagReader, PartitionLag
from stream.kafka.reachability import Reachability
from stream.settings import Settings

_log = logging.getLogger(__name__)

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


class MissingTopics:
    """Topics that Kafka doesn't have, though it had them when the process began."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._names)

    def observe(self, names: list[str]) -> None:
        """Take in which don't exist now, and say so when that changes."""
        if gone := sorted(set(names) - set(self._names)):
            _log.error(
                "Kafka has no %s any more; this goes on by itself once it is there again, which "
                "`intentstream topics` sees to",
                ", ".join(gone),
            )
        if back := sorted(set(self._names) - set(names)):
            _log.warning("Kafka has %s again", ", ".join(back))
        self._names = names
        metrics.TOPICS_MISSING.set(len(names))


class WatchedWorker(Protocol):
    """The worker, as far as the watchdog knows it."""

    def is_held(self) -> bool:
        """Whether it holds a batch because a dependency is down."""

    def owned(self) -> Set[tuple[str, int]]:
        """Topic and partition of all that it consumes; others are other workers' business."""

    def recovering(self) -> list[PartitionLag] | None:
        """How far it is with each changelog, while it reads states back; else None."""

    def committed(self, topic: str, partition: int) -> int | None:
        """The offset that it takes for committed; None before its first commit in the log."""


class Watchdog(Service):
    """Reads the group's lag every few seconds: for the metrics, and to tell a stalled worker.

    `kafka` says whether that was possible the last time.
    """

    def __init__(self, config: Settings, worker: WatchedWorker) -> None:
        self._config = config
        self._worker = worker
        self._changelog = config.topic(SESSIONS_CHANGELOG)
        self._stalls = Stalls()
        self.missing = MissingTopics()
        self.kafka = Reachability()
        super().__init__()

    def is_alive(self) -> bool:
        """False when a partition has had lag without a commit for too long."""
        return not self._stalls.stalled(monotonic())

    @Service.task
    async def _watch(self) -> None:
        group = self._config.consumer_group
        consumed = [self._config.topic(name) for name in CONSUMED_TOPICS]
        topics = [self._config.topic(topic.name) for topic in TOPICS]
        while not self.should_stop:
            try:
                async with LagReader(self._config) as reader:
                    while not self.should_stop:
                        async with answering(self._config, within_s=_PATIENCE_S):
                            missing = await reader.missing(topics)
                            lags = await reader.read(group, consumed)
                        self.kafka.answered()
                        self.missing.observe(missing)
                        if self._changelog in missing:
                            await self.crash(
                                ChangelogLostError(
                                    f"Kafka has no {self._changelog} any more, in which the "
                                    "profiles' states stood; put it back from a copy. Made anew "
                                    "it is empty, and a worker that starts says what to do then"
                                )
                            )
                        self.judge(lags, monotonic())
                        tell(lags)
                        if error := self.replaced(lags):
                            await self.crash(error)
                        await self.sleep(_INTERVAL_S)
            except BrokerError as error:
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

    def replaced(self, lags: Iterable[PartitionLag]) -> LogReplacedError | None:
        """What is to end the worker: its own commit is one in a log that isn't there any more."""
        for lag in lags:
            mine = self._worker.committed(lag.topic, lag.partition)
            if lag.replaced_at is not None and mine is not None and mine >= (lag.committed or 0):
                return LogReplacedError(
                    f"{lag.topic}[{lag.partition}] was exchanged while it was read up to offset "
                    f"{lag.committed}: from offset {lag.replaced_at} on it is another log; start "
                    "the worker again, and it reads that"
                )
        return None


def tell(lags: Iterable[PartitionLag]) -> None:
    """Set the metrics of a group's lag."""
    for lag in lags:
        metrics.LAG.labels(lag.group, lag.topic, str(lag.partition)).set(lag.lag)
        metrics.OPEN.labels(lag.topic, str(lag.partition)).set(lag.open_records)
