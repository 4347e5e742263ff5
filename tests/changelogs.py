"""States written to the changelog, and read back as a worker reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from stream.domain import codec, topics
from stream.domain.event_types import Browse
from stream.domain.profile_state import ProfileState, state_of
from stream.domain.rules import Rules
from stream.kafka.changelog import Changelog, StatesByPlace, join_into
from stream.kafka.outbox import Outbox, Outgoing
from stream.settings import Settings

AT_MS = 1_700_000_000_000


def state(profile_id: str, numbers: Iterable[int]) -> ProfileState:
    """What a profile's events of these numbers come to."""
    return state_of(
        (
            Browse(
                event_id=f"{profile_id}-{number}",
                profile_id=profile_id,
                occurred_at_ms=AT_MS + 60_000 * number,
                event_type="title_open",
                title_id=f"title-{number % 7}",
            )
            for number in numbers
        ),
        Rules(),
    )


def write_states(settings: Settings, states: Mapping[tuple[bytes, int], ProfileState]) -> None:
    """Write states, by key and partition, kept at times that differ."""

    async def write() -> None:
        async with Outbox(settings) as outbox:
            await outbox.deliver(
                [
                    Outgoing(
                        topics.SESSIONS_CHANGELOG,
                        partition,
                        key,
                        codec.encode(one),
                        timestamp_ms=AT_MS + len(one.window),
                    )
                    for (key, partition), one in states.items()
                ]
            )

    asyncio.run(write())


def read_states(settings: Settings) -> StatesByPlace:
    """Encoded states, by key and partition, each with when it was kept."""
    states: StatesByPlace = {}

    async def read() -> None:
        async with Changelog.of(settings) as changelog:
            async for record in changelog.read():
                join_into(states, record, Rules())

    asyncio.run(read())
    return states
