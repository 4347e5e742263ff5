"""A worker is stalled when lag stays and commits don't move."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

import pytest

from stream.kafka.lag import PartitionLag
from stream.settings import Settings
from stream.worker.watchdog import MissingTopics, Stalls, Watchdog


def lag(committed: int | None, end: int, start: int = 0) -> PartitionLag:
    return PartitionLag("g", "t", 0, start=start, committed=committed, end=end)


def test_lag_without_a_commit_for_too_long_is_a_stall() -> None:
    stalls = Stalls(after_s=60)
    stalls.observe([lag(5, 10)], now_s=0, is_held=False)
    stalls.observe([lag(5, 20)], now_s=61, is_held=False)
    assert stalls.stalled(now_s=61) == [("t", 0)]


def test_a_commit_starts_the_clock_again() -> None:
    stalls = Stalls(after_s=60)
    stalls.observe([lag(5, 10)], now_s=0, is_held=False)
    stalls.observe([lag(6, 20)], now_s=50, is_held=False)
    assert stalls.stalled(now_s=100) == []


def test_a_worker_held_by_back_pressure_is_alive() -> None:
    stalls = Stalls(after_s=60)
    stalls.observe([lag(5, 10)], now_s=0, is_held=False)
    stalls.observe([lag(5, 10)], now_s=50, is_held=True)
    stalls.observe([lag(5, 10)], now_s=100, is_held=False)
    assert stalls.stalled(now_s=100) == []


def test_a_topic_without_lag_is_no_stall_however_old_its_commit() -> None:
    stalls = Stalls(after_s=60)
    for now_s in (0, 100):
        stalls.observe([lag(10, 10)], now_s=now_s, is_held=False)
    assert stalls.stalled(now_s=100) == []


def test_a_group_that_never_commits_stalls_too() -> None:
    stalls = Stalls(after_s=60)
    stalls.observe([lag(None, 10)], now_s=0, is_held=False)
    assert stalls.stalled(now_s=61) == [("t", 0)]


def test_records_that_retention_took_are_no_lag() -> None:
    assert lag(committed=5, start=90, end=100).lag == 10
    assert lag(committed=None, start=90, end=100).lag == 10
    assert lag(committed=5, start=100, end=100).lag == 0


def test_all_of_another_log_that_was_not_read_is_lag() -> None:
    replaced = PartitionLag("g", "t", 0, start=3, committed=100, end=40, replaced_at=0)
    assert replaced.lag == 37
    grown = PartitionLag("g", "t", 0, start=0, committed=100, end=140, replaced_at=80)
    assert grown.lag == 60


@dataclass
class Worker:
    """Owns partition 0 of topic `t`; `restored` records of its changelog are read back."""

    restored: int | None = None
    commits: int | None = None

    def committed(self, topic: str, partition: int) -> int | None:
        return self.commits

    def is_held(self) -> bool:
        return False

    def owned(self) -> set[tuple[str, int]]:
        return {("t", 0)}

    def recovering(self) -> list[PartitionLag] | None:
        if self.restored is None:
            return None
        return [PartitionLag("g", "changelog", 0, start=0, committed=self.restored, end=1_000)]


def is_alive_after(worker: Worker, lags: list[PartitionLag], restored: int | None = None) -> bool:
    """Whether the worker counts as alive when these lags were the same for two minutes."""
    watchdog = Watchdog(Settings(), worker)
    watchdog.judge(lags, monotonic() - 120)
    worker.restored = restored
    watchdog.judge(lags, monotonic())
    return watchdog.is_alive()


def test_a_partition_that_stands_still_is_its_owner_s_fault_alone() -> None:
    assert not is_alive_after(Worker(), [lag(5, 10)])
    others = PartitionLag("g", "t", 1, start=0, committed=5, end=10)
    assert is_alive_after(Worker(), [others])


def test_a_worker_that_reads_states_back_is_alive_as_long_as_it_gets_on() -> None:
    assert is_alive_after(Worker(restored=100), [lag(5, 10)], restored=200)
    assert not is_alive_after(Worker(restored=100), [lag(5, 10)], restored=100)


def test_a_worker_that_has_read_its_states_back_has_time_to_commit() -> None:
    assert is_alive_after(Worker(restored=100), [lag(5, 10)], restored=None)


def test_while_kafka_does_not_answer_nobody_is_stalled() -> None:
    watchdog = Watchdog(Settings(), Worker())
    watchdog.judge([lag(5, 10)], monotonic() - 120)
    watchdog.judge([], monotonic())
    assert watchdog.is_alive()


@pytest.mark.parametrize(("commits", "ends"), [(None, False), (80, False), (100, True)])
def test_a_worker_ends_that_goes_on_in_a_log_which_is_gone(commits: int | None, ends: bool) -> None:
    watchdog = Watchdog(Settings(), Worker(commits=commits))
    replaced = PartitionLag("g", "t", 0, start=0, committed=100, end=140, replaced_at=80)
    assert (watchdog.replaced([lag(5, 10), replaced]) is not None) == ends


def test_a_topic_that_is_missing_is_told_when_it_goes_and_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    missing = MissingTopics()
    for names in ([], ["a"], ["a"], ["a", "b"], ["b"], []):
        missing.observe(names)
        assert bool(missing) == bool(names)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "Kafka has no a any more",
        "Kafka has no b any more",
        "Kafka has a again",
        "Kafka has b again",
    ]
