"""How soon an online store is whole again after a FLUSHALL, and what live events feel of it.

    python -m lab.bench.healing

Starts Kafka, Redis, Triton and a worker on free ports of loopback. The worker reads back the states
of 100,000 profiles, whose windows hold 1 to 64 interactions, all equally often: what it costs to
score a profile grows with its window. 500 events/s of 1,000 of them flow; the store is flushed in
the midst, and is whole when every profile has its row again. An event's freshness is the time from
its broker timestamp to the announcement of its features. At the end every profile's `sequence_no`
is read and compared. The network is untrained: its arithmetic is that of a trained one. Prints its
table and writes `docs/results/healing.json`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio as redis
import torch
from aiokafka import AIOKafkaProducer

from features.online.inspection import inspector_of
from intentstream.publishing import publish
from lab.bench.results import keep, result_file
from lab.bench.running_worker import (
    SteadyEvents,
    exported,
    freshness,
    metrics_of,
    servers,
    show_phases,
)
from stream.domain import codec, topics
from stream.domain.event_types import Browse
from stream.domain.profile_state import ProfileState
from stream.domain.rules import Rules
from stream.kafka.connection import client_options
from stream.steps import step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream.settings import Settings

PROFILES: Final = 100_000
ACTIVE: Final = 1_000
EVENTS_PER_S: Final = 500
WINDOW: Final = 64
HISTORIES: Final = 64
"""Different ones, of 1 to 64 interactions; profiles share them."""

QUIET_S: Final = 30.0
_SPACING_MS: Final = 600_000
_READ_AT_ONCE: Final = 500
_PATIENCE_S: Final = 60.0
"""Until the last events that were sent are reflected."""


def histories() -> list[bytes]:
    """Encoded states, one of each length, the newest interaction an hour ago."""
    newest_ms = round(time.time() * 1000) - 3_600_000
    states = []
    for history in range(HISTORIES):
        state = ProfileState()
        for number in range(WINDOW - history - 1, WINDOW):
            event = Browse(
                event_id=f"{history}-{number}",
                profile_id="anybody",
                occurred_at_ms=newest_ms - (WINDOW - number) * _SPACING_MS,
                event_type="title_open",
                title_id=f"title-{(history * 31 + number * 7) % 3_000}",
            )
            state.apply(event, Rules())
        states.append(codec.encode(state))
    return states


async def write_states(settings: Settings) -> None:
    """Put a state of every profile on the changelog, in the partition of its events."""
    states = histories()
    topic = settings.topic(topics.SESSIONS_CHANGELOG)
    async with AIOKafkaProducer(**client_options(settings), linger_ms=20) as producer:
        for start in range(0, PROFILES, 1_000):
            sent = [
                await producer.send(
                    topic, states[number % HISTORIES], key=f"member-{number}".encode()
                )
                for number in range(start, start + 1_000)
            ]
            await asyncio.gather(*sent)


def names() -> list[str]:
    """Of all profiles."""
    return [f"member-{number}" for number in range(PROFILES)]


async def rows_of(settings: Settings) -> dict[str, int]:
    """The `sequence_no` of every profile that has a row."""
    inspector = inspector_of(settings)
    assert inspector is not None
    found: dict[str, int] = {}
    everybody = names()
    for start in range(0, PROFILES, _READ_AT_ONCE):
        some = everybody[start : start + _READ_AT_ONCE]
        for name, place in zip(some, await inspector.places(some), strict=True):
            if place is not None:
                found[name] = place.sequence_no
    await inspector.close()
    return found


async def whole(settings: Settings, count: Callable[[], Awaitable[int]]) -> float:
    """Wait until every profile has a row; the seconds it took."""
    began = time.monotonic()
    while await count() < PROFILES or metrics_of(settings)(
        "intentstream_store_check_profiles_left"
    ):
        await asyncio.sleep(0.5)
    return time.monotonic() - began


async def measure(settings: Settings) -> dict[str, Any]:
    """How long the store took to be whole, and the freshness meanwhile and after."""
    store = redis.Redis(port=settings.redis_port)
    partitions = settings.topic_partitions

    async def count() -> int:
        return int(await store.dbsize()) - partitions

    stream = SteadyEvents(settings, EVENTS_PER_S, ACTIVE)
    began: dict[str, float] = {}
    async with stream.flowing():
        with step("steady events"):
            await asyncio.sleep(QUIET_S)
        with step("flush, and wait until it is whole"):
            await store.flushall()
            began["healing"] = time.time()
            healed_s = await whole(settings, count)
        with step("steady events after"):
            began["after"] = time.time()
            await asyncio.sleep(QUIET_S)
    wanted = {name: number % HISTORIES + 1 for number, name in enumerate(names())}
    wanted = {name: count + stream.sent[name] for name, count in wanted.items()}
    with step("read every row"):
        last_read = time.monotonic() + _PATIENCE_S
        while wrong := len(wanted.items() - (await rows_of(settings)).items()):
            if time.monotonic() > last_read:
                break
    await store.aclose()
    ends = [*list(began.values())[1:], time.time()]
    return {
        "healed_s": round(healed_s, 1),
        "profiles_per_s": round(PROFILES / healed_s),
        "missing_or_wrong_rows": wrong,
        "phases": [
            freshness(stream.ages, phase, starts, end)
            for (phase, starts), end in zip(began.items(), ends, strict=True)
        ],
    }


def main() -> None:
    """Measure, print the table, keep the result."""
    out = result_file("healing", __doc__)
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    with servers("kafka", "redis", "triton", "guard") as (stack, exports):
        (version,) = exported(exports, 0.0)
        asyncio.run(publish(stack.settings, version, exports=exports))
        with step(f"write {PROFILES:,} states"):
            asyncio.run(write_states(stack.settings))
        stack.start("worker")
        result = asyncio.run(measure(stack.settings))
    result |= {
        "profiles": PROFILES,
        "active_profiles": ACTIVE,
        "window": WINDOW,
        "offered_events_per_s": EVENTS_PER_S,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average_before": round(load, 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": "python -m lab.bench.healing",
    }
    keep(result, out)
    show_phases(result, EVENTS_PER_S)


if __name__ == "__main__":
    main()
