"""How long it takes to move the states of 100,000 profiles to other partitions, killed and not.

    python -m lab.bench.repartition

A Kafka of its own holds a changelog of full windows. `intentstream repartition` is run from 4 to 6
partitions, so that keys move between the old ones too; then from 6 to 9, killed at random moments
and run again until it is through. After each every state must be where its key belongs, byte by
byte as it was, and nowhere else. Prints a table and writes `docs/results/repartition.json`.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import xxhash
from rich.table import Table

from infra.local.programs import worker_environment
from lab.bench.results import keep, result_file
from lab.bench.running_worker import servers
from stream.domain import codec, topics
from stream.domain.event_types import Browse
from stream.domain.profile_state import ProfileState, state_of
from stream.domain.rules import Rules
from stream.kafka.changelog import Changelog
from stream.kafka.outbox import Outbox, Outgoing
from stream.kafka.partitioners import partition_of
from stream.plain_text import PlainConsole
from stream.settings import Settings

PROFILES: Final = 100_000
EVENTS: Final = 150
"""Of each profile: a full window, and titles remembered from before."""

WAS, THEN, LAST = 4, 6, 9
KILLS: Final = 5
_PARTITIONER: Final = "murmur2"
_AT_ONCE: Final = 5_000


def example() -> ProfileState:
    """A profile's state after many events."""
    return state_of(
        (
            Browse(
                event_id=f"e{number}",
                profile_id="p",
                occurred_at_ms=1_700_000_000_000 + 60_000 * number,
                event_type="title_open",
                title_id=f"t{number}",
            )
            for number in range(EVENTS)
        ),
        Rules(),
    )


async def fill(settings: Settings) -> dict[bytes, int]:
    """Write a state of each profile; return a digest of each, by key."""
    state, digests = example(), {}
    async with Outbox(settings) as outbox:
        for numbers in (
            range(start, min(start + _AT_ONCE, PROFILES)) for start in range(0, PROFILES, _AT_ONCE)
        ):
            records = []
            for number in numbers:
                key = f"member-{number}".encode()
                data = codec.encode(replace(state, last_event_id=f"last-{number}"))
                digests[key] = xxhash.xxh3_64_intdigest(data)
                partition = partition_of(key, _PARTITIONER, WAS)
                records.append(Outgoing(topics.SESSIONS_CHANGELOG, partition, key, data))
            await outbox.deliver(records)
    return digests


async def misplaced(settings: Settings, digests: dict[bytes, int], partitions: int) -> int:
    """How many profiles' states are not, or not only, where they belong and as they were."""
    standing: dict[bytes, dict[int, int]] = {key: {} for key in digests}
    async with Changelog.of(settings) as changelog:
        async for record in changelog.read():
            if record.value is None:
                standing[record.key].pop(record.partition, None)
            else:
                digest = xxhash.xxh3_64_intdigest(record.value)
                standing[record.key][record.partition] = digest
    return sum(
        standing[key] != {partition_of(key, _PARTITIONER, partitions): digest}
        for key, digest in digests.items()
    )


def run(settings: Settings, partitions: int) -> subprocess.Popen[bytes]:
    """The command, in a process of its own."""
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "intentstream", "repartition", str(partitions)],
        env={**os.environ, **worker_environment(settings)},
        stdout=subprocess.DEVNULL,
    )


def uninterrupted(settings: Settings) -> float:
    """Seconds of one run."""
    began = time.monotonic()
    if run(settings, THEN).wait() != 0:
        raise AssertionError("the repartition failed")
    return time.monotonic() - began


def killed(settings: Settings, usual_s: float) -> tuple[int, float]:
    """Kills, and the seconds until a run got through; a kill comes within the time of a run."""
    moments = random.Random(1)  # noqa: S311 - reproducible, and no secret
    began = time.monotonic()
    for kills in count():
        process = run(settings, LAST)
        try:
            within_s = moments.uniform(0.2, 0.9) * usual_s if kills < KILLS else None
            if process.wait(within_s) != 0:
                raise AssertionError("the repartition failed")
            return kills, time.monotonic() - began
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    raise AssertionError


def measure() -> dict[str, Any]:
    """Times, and what was lost."""
    with servers("kafka") as (stack, _):
        settings = stack.settings
        digests = asyncio.run(fill(settings))
        usual_s = uninterrupted(settings)
        lost = asyncio.run(misplaced(settings, digests, THEN))
        kills, killed_s = killed(settings, usual_s)
        lost_killed = asyncio.run(misplaced(settings, digests, LAST))
    return {
        "profiles": PROFILES,
        "bytes_of_a_state": len(codec.encode(example())),
        "uninterrupted": {
            "partitions": [WAS, THEN],
            "seconds": round(usual_s, 1),
            "lost": lost,
        },
        "killed": {
            "partitions": [THEN, LAST],
            "kills": kills,
            "seconds": round(killed_s, 1),
            "lost": lost_killed,
        },
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "command": "python -m lab.bench.repartition",
    }


def main() -> None:
    """Measure, print the table, keep the result."""
    out = result_file("repartition", __doc__)
    result = measure()
    keep(result, out)
    table = Table("", "partitions", "kills", "seconds", "states lost or misplaced")
    for name in ("uninterrupted", "killed"):
        told = result[name]
        was, now = told["partitions"]
        numbers = (told.get("kills", 0), told["seconds"], told["lost"])
        table.add_row(name, f"{was} to {now}", *map(str, numbers))
    console = PlainConsole()
    console.print(table)
    console.print(f"Kept in {out}; load average {result['load_average']}.")


if __name__ == "__main__":
    main()
