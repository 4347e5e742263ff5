"""Whether Kafka answers, as it is told: to Prometheus, to `/ready`, and sparingly to the log.

Who watches a group's lag hears of it first, and reports here what came of each reading.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from time import monotonic
from typing import Final

from stream import metrics
from stream.exceptions import BrokerError

_log = logging.getLogger(__name__)

_TELL_EVERY_S: Final = 60.0


class Reachability:
    """One line when Kafka no longer answers, one a minute until it does, one when it is back.

    Args:
        clock: seconds since any fixed point.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._away_since_s: float | None = None
        self._told_s = 0.0
        metrics.KAFKA_UP.set(1)

    @property
    def is_up(self) -> bool:
        """Whether Kafka answered when it was asked last."""
        return self._away_since_s is None

    def answered(self) -> None:
        """Kafka has answered."""
        if self._away_since_s is not None:
            _log.warning("Kafka answers again, after %.0f s", self._clock() - self._away_since_s)
        self._away_since_s = None
        metrics.KAFKA_UP.set(1)

    def failed(self, error: BrokerError) -> None:
        """Kafka has not answered, or not as it should; nobody knows the lag now."""
        now_s = self._clock()
        if self._away_since_s is None:
            self._away_since_s = self._told_s = now_s
            _log.error("%s. Not ready until it answers again", error)
        elif now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            _log.error("Kafka has not answered for %.0f s: %s", now_s - self._away_since_s, error)
        metrics.KAFKA_UP.set(0)
        with warnings.catch_warnings():
            # Of files that are shared between processes, which these metrics never are.
            warnings.simplefilter("ignore", UserWarning)
            metrics.LAG.clear()
