"""A worker that loses some of the events of each partition between the broker and the agent, once.

python -m tests.chaos.forgetful_worker
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import faust

from stream.kafka.transport import LeanConsumer, LeanTransport
from stream.worker.app import app

LOST = {0, *range(20, 50)}
"""Which events of a partition, in the order of their arrival."""


class ForgetfulConsumer(LeanConsumer):
    """Loses events that were fetched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arrived: Counter[Any] = Counter()

    async def _fetched(self) -> Any:
        return {
            tp: [record for record in records if self._is_kept(tp)]
            if self.app.topics.acks_enabled_for(tp.topic)
            else records
            for tp, records in (await super()._fetched() or {}).items()
        }

    def _is_kept(self, tp: Any) -> bool:
        self._arrived[tp] += 1
        return self._arrived[tp] - 1 not in LOST


if __name__ == "__main__":
    LeanTransport.Consumer = ForgetfulConsumer
    faust.Worker(app, loglevel="INFO", redirect_stdouts=False).execute_from_commandline()
