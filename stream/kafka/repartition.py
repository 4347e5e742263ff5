"""`intentstream repartition`: move states to the partitions that their keys belong to.

Workers wait meanwhile. It is said first, in the remembered topology, that states are being moved,
and workers don't start then; only after that is it made sure that none is a member of the group. A
worker asks in the other order, so that none can slip in between (see `TopologyWatch.check`).

A state is written where it belongs, joined with what stands there, and only once the broker has it
is a tombstone written where it was. So it may be cut short anywhere and run again: a state that
stands twice is joined with itself. At the end everything is read on, until nothing is out of place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.new_partitions import NewPartitions
from aiokafka.errors import GroupCoordinatorNotAvailableError

from stream.domain import topics
from stream.domain.catalogue import read_catalogue
from stream.domain.rules import Rules
from stream.exceptions import BadStateError, RepartitionRefusedError, TopicsMissingError
from stream.kafka.changelog import Changelog, KeptState, StatesByPlace, Whereabouts, join_into
from stream.kafka.connection import running
from stream.kafka.outbox import Outbox, Outgoing
from stream.kafka.partitioners import Partitioner, fitting
from stream.kafka.preflight import check_configs, describe_topics
from stream.kafka.topology import (
    Topology,
    begin_changelog,
    check_changelog,
    read_topology,
    write_topology,
)
from stream.settings import Settings

_ROUND_KEYS: Final = 20_000
"""States held in memory at once, some 4 KB each."""

_POLL_S: Final = 0.5
_MORE_S: Final = 5.0
_VISIBLE_S: Final = 30.0

Place = Callable[[bytes, int], int]
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class Repartitioned:
    """The outcome of a repartition."""

    topology: Topology
    profiles: int
    """Profiles that have a state."""

    moved: int
    """Profiles whose state stood in another partition."""


async def repartition(
    settings: Settings, count: int | None, partitioner: Partitioner | None, progress: Progress
) -> Repartitioned:
    """Give topics partitions, and move every state to where its key belongs then.

    Args:
        settings: where Kafka is, the topics' prefix and the workers' group.
        count: how many partitions every topic is to have; None: as many as they have, or as were
            asked for when it was cut short.
        partitioner: what puts keys into partitions; None: what did so far.
        progress: shows a bar of this name and total while the block runs.

    Raises:
        RepartitionRefusedError: when it can't be done as things are; says why, and what to do.
        TopicsMissingError: when a topic is missing.
        TopicsMisconfiguredError: when a topic would lose what it is given.
        ChangelogLostError: when states are gone.
        BadStateError: when a state that has to be joined can't be read.
        BrokerUnavailableError: when Kafka does not answer; run it again.
    """
    rules = Rules(
        window_length=settings.window_length,
        durations=read_catalogue(settings.catalogue).durations,
    )
    known = await read_topology(settings)
    async with running(AIOKafkaAdminClient, settings) as admin:
        had = await _partitions(admin, settings)
        await _no_members(admin, settings)
        if known and not known.moving:
            await check_changelog(settings, known.partitions)
        count = _count(count, known, had)
        topology = Topology(
            partitions=count,
            partitioner=partitioner or await _partitioner(settings, known, count),
            moving=True,
        )
        await write_topology(settings, topology)
        await _no_members(admin, settings)
        await _add_partitions(admin, settings, had, topology.partitions)
        await begin_changelog(settings)
    async with Changelog.of(settings) as changelog, Outbox(settings) as outbox:
        mover = Mover(changelog, outbox, rules, topology.place())
        moved = await mover.move_all(progress)
    topology = topology.model_copy(update={"moving": False})
    await write_topology(settings, topology)
    return Repartitioned(topology, len(mover.whereabouts), moved)


class Mover:
    """Moves states between the partitions of the changelog.

    Args:
        changelog: is read.
        outbox: writes to it.
        rules: of the join.
        place: the partition that a key belongs to.
    """

    def __init__(self, changelog: Changelog, outbox: Outbox, rules: Rules, place: Place) -> None:
        self.whereabouts = Whereabouts()
        self._changelog = changelog
        self._outbox = outbox
        self._rules = rules
        self._place = place
        self._read: dict[int, int] = {}

    async def move_all(self, progress: Progress) -> int:
        """Move states until none is out of place; return of how many profiles."""
        moved = 0
        while keys := await self._misplaced():
            with progress("states moved", len(keys)) as advance:
                for start in range(0, len(keys), _ROUND_KEYS):
                    chosen = keys[start : start + _ROUND_KEYS]
                    await self._move(chosen)
                    advance(start + len(chosen))
            moved += len(keys)
        return moved

    async def _misplaced(self) -> list[bytes]:
        """Keys that have a state where they don't belong, those of one partition together."""
        async for record in self._changelog.read(since=self._read):
            self.whereabouts.take(record.key, record.partition, is_gone=record.value is None)
        source = {
            key: partition
            for key, partition in self.whereabouts.placed()
            if self._place(key, partition) != partition
        }
        return sorted(source, key=lambda key: source[key])

    async def _move(self, keys: Sequence[bytes]) -> None:
        places = {key: self.whereabouts.of(key) for key in keys}
        states: StatesByPlace = {}
        async for record in self._changelog.read({at for some in places.values() for at in some}):
            if record.key in places:
                join_into(states, record, self._rules)
        by_key: dict[bytes, dict[int, KeptState]] = {}
        for (key, partition), state in states.items():
            by_key.setdefault(key, {})[partition] = state
        written, gone = [], []
        for key, standing in by_key.items():
            home = self._place(key, min(standing))
            state = whole(key, list(standing.values()), self._rules)
            if standing.get(home) != state:
                written.append(_record(key, home, state.data, state.at_ms))
            gone += [_record(key, at, None) for at in standing if at != home]
        await self._outbox.deliver(written)
        await self._outbox.deliver(gone)


def whole(key: bytes, states: Sequence[KeptState], rules: Rules) -> KeptState:
    """All states of one profile joined, with the time at which the newest was kept.

    Raises:
        BadStateError: when one can't be read; says whose.
    """
    from stream.domain import codec  # as in `stream.kafka.changelog`

    data = states[0].data
    try:
        for state in states[1:]:
            data = codec.joined(data, state.data, rules)
    except BadStateError as error:
        raise BadStateError(f"the states of {key!r} can't be joined: {error}") from error
    return KeptState(data, max(state.at_ms for state in states))


def _record(key: bytes, partition: int, value: bytes | None, at_ms: int | None = None) -> Outgoing:
    return Outgoing(topics.SESSIONS_CHANGELOG, partition, key, value, timestamp_ms=at_ms)


async def _partitions(admin: Any, settings: Settings) -> dict[str, int]:
    """How many partitions each topic has."""
    described = await describe_topics(admin, settings)
    missing = sorted(one.name for one in described if not one.partitions)
    if missing:
        raise TopicsMissingError(
            f"no such topics: {', '.join(missing)}; `intentstream topics` makes them"
        )
    check_configs(described, settings)
    return {one.name: one.partitions for one in described}


def _count(asked: int | None, known: Topology | None, had: Mapping[str, int]) -> int:
    most = max(had.values())
    if asked is None and known and known.moving:
        return max(known.partitions, most)
    if asked is None and len(set(had.values())) > 1:
        raise RepartitionRefusedError(
            f"topics with different numbers of partitions: {dict(had)}; say how many all are to "
            f"have: `intentstream repartition {most}`, or more"
        )
    if asked is not None and asked < most:
        raise RepartitionRefusedError(
            f"there are topics with {most} partitions, and Kafka takes none away; ask for {most} "
            "or more"
        )
    return asked or most


async def _partitioner(settings: Settings, known: Topology | None, count: int) -> Partitioner:
    """The partitioner that is remembered, or else the one that explains where states are."""
    if known and known.partitioner:
        return known.partitioner
    whereabouts = Whereabouts()
    async with Changelog.of(settings) as changelog:
        async for record in changelog.read():
            whereabouts.take(record.key, record.partition, is_gone=False)
    was = [known.partitions] if known else range(1, count + 1)
    good = fitting(whereabouts.placed(), was, count)[0] if len(whereabouts) else []
    if len(good) == 1:
        return good[0]
    told = f"{', '.join(good)} would all put" if good else "no known partitioner would put"
    raise RepartitionRefusedError(
        f"{told} the {len(whereabouts)} profiles where they are; name that of your producers: "
        "--partitioner murmur2 (Java, aiokafka, kafka-python), crc32 (librdkafka, confluent-kafka) "
        "or fnv1a (Sarama). If they use another or several, any of these will do: workers forward "
        "what comes by another partition"
    )


async def _no_members(admin: Any, settings: Settings) -> None:
    """Wait for the last workers to leave: one with an INTENT_INSTANCE_ID does as its session ends.

    Raises:
        RepartitionRefusedError: when they stay.
    """
    deadline = asyncio.get_running_loop().time() + settings.session_timeout_s + _MORE_S
    while members := await _members(admin, settings.consumer_group):
        if asyncio.get_running_loop().time() > deadline:
            raise RepartitionRefusedError(
                f"{members} workers are members of the group {settings.consumer_group}; stop all "
                "of them, then run this again"
            )
        await asyncio.sleep(_POLL_S)


async def _members(admin: Any, group: str) -> int:
    try:
        (answer,) = await admin.describe_consumer_groups([group])
    except GroupCoordinatorNotAvailableError:
        return 0  # no group ever was
    ((_, _, _, _, _, members, *_),) = answer.groups
    return len(members)


async def _add_partitions(
    admin: Any, settings: Settings, had: Mapping[str, int], count: int
) -> None:
    more = {name: NewPartitions(count) for name, now in had.items() if now < count}
    if not more:
        return
    await admin.create_partitions(more)
    deadline = asyncio.get_running_loop().time() + _VISIBLE_S
    while True:
        described = await admin.describe_topics(list(had))
        leaders = [[at["leader"] for at in topic["partitions"]] for topic in described]
        if all(len(some) >= count and min(some) >= 0 for some in leaders):
            return
        if asyncio.get_running_loop().time() > deadline:
            raise RepartitionRefusedError(
                f"new partitions have no leader after {_VISIBLE_S:.0f} s; look at the broker's "
                "log, then run this again"
            )
        await asyncio.sleep(_POLL_S)
