"""A worker whose fetches last long, and in which much time passes around each seek.

python -m tests.chaos.slow_seeking_worker
"""

from __future__ import annotations

import asyncio
from typing import Any

import faust

from stream.kafka.transport import LeanConsumer, LeanTransport
from stream.worker.app import app

SLOW_S = 1.0
FETCH_S = 5.0


class SlowSeekingConsumer(LeanConsumer):
    """Gives records around a seek the time to be fetched and delivered too early."""

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        return await super()._getmany(active_partitions, FETCH_S)

    async def seek_wait(self, partitions: Any) -> None:
        await super().seek_wait(partitions)
        await asyncio.sleep(SLOW_S)

    async def perform_seek(self) -> None:
        await asyncio.sleep(SLOW_S)
        await super().perform_seek()
        await asyncio.sleep(SLOW_S)


if __name__ == "__main__":
    LeanTransport.Consumer = SlowSeekingConsumer
    faust.Worker(app, loglevel="INFO", redirect_stdouts=False).execute_from_commandline()
