"""Deadlines that a busy machine does not reach, and that a hang does.

Seconds in which something on this machine had to wait for a core, for the disk or for memory count
a twentieth: whoever is waited for may have got nothing of them. Linux tells how many those were
(pressure stall information); where it doesn't, they are reckoned from the load.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Final

_PRESSURE: Final = Path("/proc/pressure")
_LEAST: Final = 0.05


class Patience:
    """A deadline, from now on.

    Args:
        seconds: it is over after so many on a machine with nothing else to do.
        pressure: where Linux tells of pressure.
    """

    def __init__(self, seconds: float, pressure: Path = _PRESSURE) -> None:
        self._seconds = seconds
        self._pressure = pressure
        self._began = time.monotonic()
        self._stalled = self._stalled_s()

    @property
    def waited_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def over(self) -> bool:
        """Whether whoever is waited for has had its time."""
        waited, stalled = self.waited_s, self._stalled_s()
        if self._stalled is None or stalled is None:
            fair = min(1.0, (os.cpu_count() or 1) / max(os.getloadavg()[0], 1.0))
        else:
            fair = 1.0 - (stalled - self._stalled) / max(waited, 1e-9)
        return waited * max(fair, _LEAST) > self._seconds

    def _stalled_s(self) -> float | None:
        try:
            told = [(self._pressure / name).read_text() for name in ("cpu", "io", "memory")]
        except OSError:
            return None
        # Whether one task waits or all do: the one may be ours.
        return sum(map(int, re.findall(r"^some .*total=(\d+)", "\n".join(told), re.M))) / 1e6
