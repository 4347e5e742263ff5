"""The Faust table of session states, with a changelog of our own sending.

Faust's table sends its changelog one record at a time through a buffered producer; here the
pipeline sends it in bulk and awaits its delivery, to the same topic and partitions, so that Faust's
recovery and standbys read it as usual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import faust
import numpy as np
from faust.stores.memory import Store
from faust.types import EventT

from stream.domain import codec, topics
from stream.domain.events import Unreadable
from stream.domain.rules import Durations, Rules
from stream.exceptions import BadStateError
from stream.settings import Settings
from stream.worker.states import Kept


class SessionTable(faust.Table[bytes, bytes]):
    """States of profiles by record key, kept in Faust's in-memory store.

    Recovery joins the changelog records of a key instead of taking the last one, so that records of
    a paused former owner of the partition can't undo its successor's.
    """

    rules: Rules
    kept_at_s: dict[bytes, float]
    """Broker time, in seconds, at which each state was kept last."""
    place: Callable[[bytes, int], int]
    """The partition that a key belongs to, given the one in which it was found."""

    @classmethod
    def of(cls, app: faust.App, settings: Settings, durations: Durations) -> SessionTable:
        """The app's table of states; `durations` are the catalogue's."""
        changelog = app.topic(
            settings.topic(topics.SESSIONS_CHANGELOG),
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            acks=False,
            internal=True,
            allow_empty=True,
            maxsize=131_072,
        )
        table = cls(
            app,
            name="sessions",
            store="memory://",
            key_type=bytes,
            value_type=bytes,
            changelog_topic=changelog,
        )
        table.kept_at_s = {}
        table.place = lambda _, found: found
        table.rules = Rules(window_length=settings.window_length, durations=durations)
        app.tables.add(table)
        return table

    @property
    def _memory(self) -> Store[bytes, bytes]:
        return cast(Store[bytes, bytes], self.data)

    def fetch(self, key: bytes) -> bytes | None:
        """The encoded state of a profile; None where there is none yet."""
        state: bytes | None = self._memory.data.get(key)
        return state

    def keep(self, partition: int, key: bytes, value: bytes, at_s: float) -> None:
        """Keep the encoded state of a profile of a partition; the changelog is the caller's."""
        store = self._memory
        store.data[key] = value
        # Faust's store forgets the keys of partitions that it was told of and that went away.
        store._key_partition[key] = partition
        self.kept_at_s[key] = max(at_s, self.kept_at_s.get(key, at_s))

    def kept_last_s(self, key: bytes) -> float:
        """Broker time, in seconds, at which a profile's state was kept last; 0 without one."""
        return self.kept_at_s.get(key, 0.0)

    def newest_first(self) -> list[Kept]:
        """Every profile whose state is kept, those kept last first."""
        partitions, times = self._memory._key_partition, list(self.kept_at_s.items())
        # Python's own sort would hold the event loop for long where there are millions.
        order = np.argsort(np.fromiter((at_s for _, at_s in times), np.float64, len(times)))
        return [
            Kept(partitions[key], key, at_s)
            for key, at_s in map(times.__getitem__, order[::-1].tolist())
            if key in partitions
        ]

    def idle_since(self, at_s: float) -> list[tuple[int, bytes]]:
        """Partition and key of each state that was kept last before this broker time."""
        store = self._memory
        for key in self.kept_at_s.keys() - store.data.keys():
            del self.kept_at_s[key]
        return [
            (store._key_partition[key], key)
            for key, kept_at_s in self.kept_at_s.items()
            if kept_at_s < at_s
        ]

    def drop(self, key: bytes) -> None:
        """Let go of a profile's state; the changelog is the caller's."""
        self._memory.data.pop(key, None)
        self._memory._key_partition.pop(key, None)
        self.kept_at_s.pop(key, None)

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Join the states in changelog records into the table; a tombstone removes one.

        What stands in a partition that its key doesn't belong to was written by a worker that was
        paused while states were moved. It acknowledged none of it, so that it is nothing new.
        """
        for event in batch:
            message: Any = event.message
            if self.place(message.key, message.partition) != message.partition:
                continue
            if message.value is None:
                self.drop(message.key)
            else:
                try:
                    if isinstance(message.value, Unreadable):
                        raise BadStateError(message.value.why)
                    state = codec.joined(self.fetch(message.key), message.value, self.rules)
                except BadStateError as error:
                    self._end(message, error)
                    raise
                self.keep(message.partition, message.key, state, message.timestamp)

    def _end(self, message: Any, error: BadStateError) -> None:
        # Faust would log what is raised here and wait for ever for the rest of the changelog.
        told = BadStateError(
            f"the state of {message.key!r} in {message.topic}, partition {message.partition}, "
            f"offset {message.offset} can't be read: {error}; upgrade this worker if a newer one "
            "wrote it, or write a tombstone for that key, which loses the profile's history"
        )
        told.__cause__ = error
        self._ending = asyncio.ensure_future(self.app.crash(told))
