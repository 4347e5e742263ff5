from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest

from stream.logs import JsonLines, Throttle, logging_config
from stream.settings import Settings


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


def record(text: str, *arguments: object, error: bool = False) -> logging.LogRecord:
    info = sys.exc_info() if error else None
    return logging.LogRecord("stream.worker", logging.ERROR, "a.py", 1, text, arguments, info)


def test_a_record_is_one_line_of_json_whatever_its_text_holds() -> None:
    line = JsonLines().format(record("%s \u202e and \n more", '"quoted"'))
    assert "\n" not in line
    assert "\u202e" not in line
    told = json.loads(line)
    assert told["message"] == '"quoted" \u202e and \n more'
    assert (told["level"], told["logger"]) == ("ERROR", "stream.worker")
    assert datetime.fromisoformat(told["time"]).tzinfo
    assert set(told) == {"time", "level", "logger", "message"}


def test_an_error_is_told_with_its_traceback() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        told = json.loads(JsonLines().format(record("failed", error=True)))
    assert told["exception"].startswith("Traceback")
    assert told["exception"].endswith("ValueError: why")


@pytest.mark.parametrize(("log_format", "kind"), [("json", JsonLines), ("text", logging.Formatter)])
def test_the_setting_says_how_all_that_a_process_logs_is_written(
    log_format: str, kind: type[logging.Formatter]
) -> None:
    config = logging_config(Settings(log_format=log_format, log_level="WARNING"))  # type: ignore[arg-type]
    made = logging.config.DictConfigurator(config)
    assert type(made.configure_formatter(config["formatters"]["ours"])) is kind
    assert config["root"] == {"handlers": ["stderr"], "level": "WARNING"}
