"""A worker in which much time passes before and after the seek to committed offsets.

python -m tests.chaos.slow_seeking_worker
"""

from __future__ import annotations

import asyncio

import faust

from stream.app import app
from stream.transport import LeanConsumer, LeanTransport

SLOW_S = 1.0


class SlowSeekingConsumer(LeanConsumer):
    """Gives records around the seek the time to be delivered too early."""

    async def perform_seek(self) -> None:
        await asyncio.sleep(SLOW_S)
        await super().perform_seek()
        await asyncio.sleep(SLOW_S)


if __name__ == "__main__":
    LeanTransport.Consumer = SlowSeekingConsumer
    faust.Worker(app, loglevel="INFO", redirect_stdouts=False).execute_from_commandline()
