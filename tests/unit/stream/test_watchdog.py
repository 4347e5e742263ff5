"""A worker is stalled when lag stays and commits don't move."""

from __future__ import annotations

from stream.lag import PartitionLag
from stream.watchdog import Stalls


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
