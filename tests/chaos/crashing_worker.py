"""A worker that kills itself at one boundary of the batch that holds one event or erasure.

    python -m tests.chaos.crashing_worker STEP ID

STEP is the method of `Pipeline` after which the process gets SIGKILL; ID that of an event, or of a
profile that is erased.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from typing import Any

import faust

from stream.worker.app import app
from stream.worker.pipeline import Pipeline


def crashing(step: str, wanted: str) -> type[Pipeline]:
    """`Pipeline`, but killed after `step` of a batch.

    It is one in which `wanted` is a profile's newest event, or a profile that is erased.
    """

    class CrashingPipeline(Pipeline):
        armed = False

        async def join(self, batch: Any) -> None:
            await super().join(batch)
            newest = batch.scored_states.last_event_ids
            self.armed = wanted in batch.erased or wanted in newest
            self.crash_after("join")

        def crash_after(self, name: str) -> None:
            if self.armed and name == step:
                os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(name: str) -> Any:
        async def method(self: CrashingPipeline, *args: Any) -> Any:
            result = await getattr(Pipeline, name)(self, *args)
            self.crash_after(name)
            return result

        return method

    for name, member in vars(Pipeline).items():
        if inspect.iscoroutinefunction(member) and name[0] != "_" and name != "join":
            setattr(CrashingPipeline, name, wrapped(name))
    return CrashingPipeline


if __name__ == "__main__":
    app.pipeline_type = crashing(*sys.argv[1:])
    faust.Worker(app, loglevel="INFO", redirect_stdouts=False).execute_from_commandline()
