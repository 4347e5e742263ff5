from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from stream.logs import Throttle


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock) -> Iterator[list[str]]:
    """What passes to a handler of the root logger."""
    handler = Kept()
    handler.addFilter(Throttle(every_s=60, clock=clock))
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)


def test_a_client_s_warning_passes_once_a_minute_and_tells_how_many_did_not(
    clock: Clock, lines: list[str]
) -> None:
    log = logging.getLogger("aiokafka.conn")
    for number in range(5):
        clock.now_s = number
        log.warning("node %d is away", number)
    clock.now_s = 60
    log.warning("node %d is away", 9)
    assert lines == ["node 0 is away", "node 9 is away (4 like it were left out before)"]


def test_warnings_of_another_text_or_logger_pass(lines: list[str]) -> None:
    for name in ("aiokafka.conn", "faust.transport"):
        for text in ("one", "two"):
            logging.getLogger(name).error(text)
    assert lines == ["one", "two"] * 2


def test_what_is_ours_or_less_than_a_warning_always_passes(lines: list[str]) -> None:
    logging.getLogger("aiokafka").setLevel(logging.INFO)
    for _ in range(3):
        logging.getLogger("stream.worker.pipeline").warning("ours")
        logging.getLogger("aiokafka").info("told")
    assert lines == ["ours", "told"] * 3
