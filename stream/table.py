"""The Faust table of session states, with a changelog of our own sending.

Faust's table sends its changelog one record at a time through a buffered producer; here the
pipeline sends it in bulk and awaits its delivery, to the same topic and partitions, so that Faust's
recovery and standbys read it as usual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, cast

import faust
from faust.stores.memory import Store
from faust.types import EventT

from stream import codec, topics
from stream.events import Unreadable
from stream.exceptions import BadState
from stream.session import Rules
from stream.settings import Settings


class SessionTable(faust.Table[bytes, bytes]):
    """States of profiles by record key, kept in Faust's in-memory store.

    Recovery joins the changelog records of a key instead of taking the last one, so that records of
    a paused former owner of the partition can't undo its successor's.
    """

    rules: Rules
    kept_at_s: dict[bytes, float]
    """Broker time, in seconds, at which each state was kept last."""

    @classmethod
    def of(cls, app: faust.App, settings: Settings, duration_ms: Mapping[int, int]) -> SessionTable:
        """The app's table of states; `duration_ms` is the catalogue's, by title hash."""
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
        table.rules = Rules(window_length=settings.window_length, duration_ms=duration_ms)
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
        """Join the states in changelog records into the table; a tombstone removes one."""
        for event in batch:
            message: Any = event.message
            if message.value is None:
                self.drop(message.key)
            else:
                try:
                    if isinstance(message.value, Unreadable):
                        raise BadState(message.value.why)
                    state = self._joined(message.key, message.value)
                except BadState as error:
                    self._end(message, error)
                    raise
                self.keep(message.partition, message.key, state, message.timestamp)

    def _end(self, message: Any, error: BadState) -> None:
        # Faust would log what is raised here and wait for ever for the rest of the changelog.
        told = BadState(
            f"the state of {message.key!r} in {message.topic}, partition {message.partition}, "
            f"offset {message.offset} can't be read: {error}; upgrade this worker if a newer one "
            "wrote it, or write a tombstone for that key, which loses the profile's history"
        )
        told.__cause__ = error
        self._ending = asyncio.ensure_future(self.app.crash(told))

    def _joined(self, key: bytes, value: bytes) -> bytes:
        known = self.fetch(key)
        if known is None or known == value:
            return value
        state, other = codec.decode(known), codec.decode(value)
        # Nearly always one has all of the other: what comes next in the log, or is read again.
        if other.covers(state, self.rules):
            return value
        if state.covers(other, self.rules):
            return known
        return codec.encode(state.joined(other, self.rules))
