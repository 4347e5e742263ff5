"""Deadlines wait as long as the machine is busy, and end where it isn't."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from stream.patience import Patience


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def stalled(pressure: Path, *, cpu_s: float = 0, io_s: float = 0) -> Path:
    """What Linux tells of so many seconds in which something waited."""
    for name, seconds in (("cpu", 7 + cpu_s), ("io", io_s), ("memory", 0)):
        (pressure / name).write_text(
            f"some avg10=1.00 avg60=2.00 avg300=3.00 total={seconds * 1e6:.0f}\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=99000000\n"
        )
    return pressure


def test_on_a_free_machine_a_deadline_is_what_it_says(tmp_path: Path, clock: Clock) -> None:
    patience = Patience(90, stalled(tmp_path))
    clock.now += 90
    assert not patience.over
    clock.now += 1
    assert patience.over
    assert patience.waited_s == 91


def test_seconds_in_which_something_waited_for_the_machine_hardly_count(
    tmp_path: Path, clock: Clock
) -> None:
    patience = Patience(90, stalled(tmp_path))
    clock.now += 300
    stalled(tmp_path, cpu_s=180, io_s=40)
    assert not patience.over
    clock.now += 11
    assert patience.over


def test_a_hang_on_a_machine_that_is_always_busy_is_told_in_the_end(
    tmp_path: Path, clock: Clock
) -> None:
    patience = Patience(90, stalled(tmp_path))
    clock.now += 1790
    stalled(tmp_path, cpu_s=1790, io_s=1000)
    assert not patience.over
    clock.now += 20
    stalled(tmp_path, cpu_s=1810, io_s=1000)
    assert patience.over


def test_without_word_of_pressure_the_load_says_what_counts(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = 5.0 * (os.cpu_count() or 1)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    patience = Patience(90, tmp_path)
    clock.now += 449
    assert not patience.over
    clock.now += 2
    assert patience.over
