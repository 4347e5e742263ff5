"""`intentstream repartition` that kills itself after so many deliveries.

    python -m tests.chaos.crashing_repartition DELIVERIES COUNT

Rounds are small, so that there are many.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable

from intentstream.cli import main
from stream.kafka import repartition
from stream.kafka.outbox import Outbox, Outgoing


class CrashingOutbox(Outbox):
    """Kills the process once it has delivered so often."""

    left = int(sys.argv[1])

    async def deliver(self, records: Iterable[Outgoing]) -> None:
        """Deliver, and then perhaps die."""
        await super().deliver(records)
        CrashingOutbox.left -= 1
        if CrashingOutbox.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    repartition._ROUND_KEYS = 50  # type: ignore[misc]
    repartition.Outbox = CrashingOutbox  # type: ignore[attr-defined, misc]
    sys.argv = ["intentstream", "repartition", *sys.argv[2:]]
    main.main()
