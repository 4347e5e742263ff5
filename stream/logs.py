"""How a process logs: for people or as JSON, and without what clients warn of again and again.

A client without its server tries again many times a second, and warns each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from logging.config import dictConfig
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from stream.plain_text import json_text
from stream.traces import current_ids

if TYPE_CHECKING:
    from stream.settings import WorkerSettings

_CLIENTS: Final = frozenset({"aiokafka", "faust", "mode"})
_EVERY_S: Final = 60.0
_MOST_KINDS: Final = 1_000
_TEXT: Final = "%(asctime)s %(levelname)s %(message)s"


class JsonLines(logging.Formatter):
    """Makes each record a line of JSON.

    It has `time`, `level`, `logger` and `message`; `exception` where there is one; `trace_id` and
    `span_id` where the record was logged at work on a traced event.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **current_ids(),
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            told["exception"] = record.exc_text
        return json_text(told)


def logging_config(settings: WorkerSettings) -> dict[str, Any]:
    """For `logging.config.dictConfig`: all to the standard error, in the format of the settings."""
    is_json = settings.log_format == "json"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"ours": {"()": JsonLines} if is_json else {"format": _TEXT}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "ours"}},
        "root": {"handlers": ["stderr"], "level": settings.log_level},
    }


def set_up(settings: WorkerSettings) -> None:
    """Have this process log as its settings say."""
    dictConfig(logging_config(settings))


class Throttle(logging.Filter):
    """Passes a client's warning once a minute, whatever its text is filled in with.

    The next one that passes says how many were left out before it. What isn't a client's, or is
    less than a warning, always passes.

    Args:
        every_s: time between two of a kind, in seconds.
        clock: seconds since any fixed point.
    """

    def __init__(self, every_s: float = _EVERY_S, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._told: dict[tuple[str, int, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes."""
        is_client = record.name.partition(".")[0] in _CLIENTS
        if not is_client or record.levelno < logging.WARNING:
            return True
        kind = (record.name, record.levelno, record.msg)
        now_s = self._clock()
        told_s, left_out = self._told.get(kind, (float("-inf"), 0))
        if now_s - told_s < self._every_s:
            self._told[kind] = (told_s, left_out + 1)
            return False
        if len(self._told) >= _MOST_KINDS:
            # Some put what they tell of into the text itself, which makes each a kind of its own.
            self._told.clear()
        self._told[kind] = (now_s, 0)
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out:,} like it were left out before)"
            record.args = ()
        return True


def throttle_clients() -> None:
    """Throttle what client libraries write through the handlers of the root logger."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(Throttle())


def mute_clients() -> None:
    """Keep client libraries from writing to the terminal where no log was set up.

    A command tells what failed itself.
    """
    for name in _CLIENTS:
        logging.getLogger(name).addHandler(logging.NullHandler())
