"""Moving states keeps all of them, whatever stands where, and wherever it is cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stream.domain import codec
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules
from stream.kafka.changelog import KeptState, StatesByPlace, join_into
from stream.kafka.outbox import Outgoing
from stream.kafka.repartition import Mover
from stream.kafka.topology import Topology
from tests.unit.stream.strategies import histories

KEYS = [b"a", b"b", b"c"]
TOPOLOGY = Topology(partitions=6, partitioner="crc32", moving=True)

standing = st.dictionaries(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 5)), histories.filter(len), max_size=8
)


class KilledError(Exception):
    """The process ended."""


class Log:
    """A changelog in memory, which is written one record at a time and may end the process."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.left: int | None = None

    async def read(
        self, partitions: Collection[int] | None = None, since: dict[int, int] | None = None
    ) -> AsyncIterator[Any]:
        since = {} if since is None else since
        for record in self.records[since.get(0, 0) :]:
            if partitions is None or record.partition in partitions:
                yield record
        since[0] = len(self.records)

    async def deliver(self, records: Collection[Outgoing]) -> None:
        for record in records:
            if self.left == 0:
                raise KilledError
            self.left = None if self.left is None else self.left - 1
            self.write(record.key, record.partition, record.value, record.timestamp_ms)

    def write(self, key: Any, partition: int, value: bytes | None, at_ms: int | None) -> None:
        place = {"key": key, "partition": partition, "topic": "t", "offset": len(self.records)}
        self.records.append(SimpleNamespace(**place, value=value, timestamp=at_ms))

    def states(self) -> StatesByPlace:
        states: StatesByPlace = {}
        for record in self.records:
            join_into(states, record, Rules())
        return states


@contextmanager
def unseen(_: str, __: int) -> Iterator[Any]:
    yield lambda _: None


@given(standing, st.lists(st.integers(0, 8), max_size=3))
def test_every_state_ends_where_it_belongs_joined_with_what_is_there(
    histories: dict[tuple[bytes, int], Any], deaths: list[int]
) -> None:
    log = Log()
    wanted: dict[bytes, KeptState] = {}
    for number, ((key, partition), events) in enumerate(histories.items()):
        state = state_of(events, Rules())
        data = codec.encode(state)
        log.write(key, partition, data, number)
        known = wanted.get(key)
        wanted[key] = KeptState(codec.joined(known and known.data, data, Rules()), number)

    def move() -> int:
        mover = Mover(log, log, Rules(), TOPOLOGY.place())  # type: ignore[arg-type]
        return asyncio.run(mover.move_all(unseen))

    for left in deaths:
        log.left = left
        with suppress(KilledError):
            move()
    log.left = None
    move()
    place = TOPOLOGY.place()
    assert log.states() == {(key, place(key, 0)): state for key, state in wanted.items()}
    written = len(log.records)
    assert move() == 0
    assert len(log.records) == written
