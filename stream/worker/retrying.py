"""Retries what a dependency fails, until it is back or the worker leaves."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from stream import metrics
from stream.exceptions import ShuttingDownError, UnavailableError

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.05
_LONGEST_RETRY_S: Final = 5.0

_SLOW_S: Final = 5.0
"""An attempt that takes longer is told as back-pressure, though it may succeed yet."""


class Retries:
    """Holds its callers while a dependency is away.

    Args:
        gives_up: asked before each retry; True ends it with `ShuttingDownError`.
    """

    def __init__(self, gives_up: Callable[[], bool]) -> None:
        self._gives_up = gives_up
        self._retried: Counter[str] = Counter()

    @property
    def waits_for(self) -> str | None:
        """A dependency that is down and retried right now, if any."""
        return next(iter(+self._retried), None)

    async def retry(self, dependency: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """What an attempt returns; one that fails as `UnavailableError` is made again.

        Raises:
            ShuttingDownError: when `gives_up` says so.
        """
        waiting = False

        def wait() -> None:
            nonlocal waiting
            self._retried[dependency] += not waiting
            waiting = True
            metrics.BACK_PRESSURE.set(1)

        def hold(state: RetryCallState) -> None:
            wait()
            metrics.RETRIES.labels(dependency).inc()
            _log.warning("Attempt %d: %s", state.attempt_number, _error_of(state))

        async def watched() -> _T:
            # A producer without a broker neither fails nor returns.
            task = asyncio.ensure_future(attempt())
            try:
                while not (await asyncio.wait([task], timeout=_SLOW_S))[0]:
                    if not waiting:
                        _log.warning("No answer of %s for %g s", dependency, _SLOW_S)
                    wait()
                    if self._gives_up():
                        raise ShuttingDownError(f"gave up on {dependency}: no answer")
                return task.result()
            finally:
                task.cancel()

        def give_up(state: RetryCallState) -> _T:
            raise ShuttingDownError(f"gave up on {dependency}: {_error_of(state)}")

        retries = AsyncRetrying(
            retry=retry_if_exception_type(UnavailableError),
            wait=wait_random_exponential(multiplier=_FIRST_RETRY_S, max=_LONGEST_RETRY_S),
            stop=lambda _: self._gives_up(),
            before_sleep=hold,
            retry_error_callback=give_up,
        )
        try:
            return await retries(watched)
        finally:
            if waiting:
                self._retried[dependency] -= 1
                metrics.BACK_PRESSURE.set(self.waits_for is not None)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
