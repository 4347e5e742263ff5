"""Events that keep coming while a test does something."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, Self

from stream.settings import Settings
from tests.workers import send, title_open

_BURSTS_PER_S: Final = 5


class Traffic:
    """Events of all profiles, one after another, from entering until `end`.

    Attributes:
        sent: events of each profile.
        last: id of each profile's newest.
    """

    def __init__(self, settings: Settings, profiles: Sequence[str], per_s: int) -> None:
        # One profile's events need times of their own, or its newest would be a matter of ids.
        assert per_s // _BURSTS_PER_S <= len(profiles)
        self.sent: Counter[str] = Counter()
        self.last: dict[str, str] = {}
        self._settings = settings
        self._profiles = profiles
        self._burst = per_s // _BURSTS_PER_S
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._flow)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Send no more; returns when all that was sent is delivered."""
        self._over.set()
        self._thread.join()

    def _flow(self) -> None:
        profiles = itertools.cycle(self._profiles)
        while not self._over.is_set():
            began = time.monotonic()
            events = [title_open(next(profiles)) for _ in range(self._burst)]
            for event in events:
                self.sent[event["profile_id"]] += 1
                self.last[event["profile_id"]] = event["event_id"]
            send(self._settings, events)
            time.sleep(max(0.0, 1 / _BURSTS_PER_S - (time.monotonic() - began)))
