"""What one worker takes, with all that it promises, beside plain Faust agents that promise less.

    python -m lab.bench.worker

Starts Kafka, Redis and Triton on free ports of loopback. First a backlog, events of many profiles
in random order: the worker works it off, then each of `lab.bench.plain_agent`, alone. Then steady
events at several rates, and the worker's freshness. Progress is that of committed offsets; the CPU
time is that of each process, Triton's with the model in it. The network is untrained: its
arithmetic is that of a trained one. Prints its tables and writes `docs/results/worker.json`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import redis
import torch
from aiokafka import AIOKafkaProducer
from rich.table import Table

from features.reading.intents import MAX_PROFILES
from features.reading.reader import IntentReader
from infra.local.programs import worker_environment
from intentstream.publishing import publish
from lab.bench.inference import ServerTime
from lab.bench.results import keep, result_file
from lab.bench.running_worker import SteadyEvents, event_of, exported, servers
from stream.domain import topics
from stream.kafka.connection import client_options
from stream.kafka.lag import LagReader
from stream.plain_text import PlainConsole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.local.stack import Stack
    from stream.settings import Settings

PROFILES: Final = 5_000
BACKLOG: Final = 150_000
LONGEST_S: Final = 30.0
"""That one way of working the backlog off is watched."""

RATES: Final = (100, 500, 1_000, 2_000)
STEADY_PROFILES: Final = 1_000
WARM_UP_S: Final = 5.0
STEADY_S: Final = 20.0

WORKER: Final = "intentstream worker"
PLAIN: Final = {
    "plain agent, one by one": "one_by_one",
    "plain agent, in batches": "in_batches",
}
SERVERS: Final = ("triton", "redis", "kafka")

_POLL_S: Final = 0.2
_BEGUN: Final = 0.1
_ENDED: Final = 0.95
_PATIENCE_S: Final = 120.0


async def send_backlog(settings: Settings) -> Counter[str]:
    """Events of all profiles in random order; how many each has."""
    chance = random.Random(0)  # noqa: S311 - reproducible, and no secret
    sent: Counter[str] = Counter()
    async with AIOKafkaProducer(**client_options(settings), linger_ms=5) as producer:
        for number in range(BACKLOG):
            profile = f"profile-{chance.randrange(PROFILES)}"
            sent[profile] += 1
            value = orjson.dumps(event_of(number, profile))
            await producer.send(settings.topic(topics.BROWSE_EVENTS), value, key=profile.encode())
    return sent


async def worked_off(
    settings: Settings, group: str, processes: dict[str, ServerTime]
) -> dict[str, Any]:
    """Events/s of a group in the middle of the backlog, and CPU time per event by process."""
    topic = settings.topic(topics.BROWSE_EVENTS)
    async with LagReader(settings) as reader:

        async def committed() -> int:
            return sum(one.committed or 0 for one in await reader.read(group, [topic]))

        async def reached(count: int, within_s: float) -> tuple[int, float, dict[str, float]]:
            deadline = time.monotonic() + within_s
            while (found := await committed()) < count and time.monotonic() < deadline:
                await asyncio.sleep(_POLL_S)
            cpu = {name: process.now() for name, process in processes.items()}
            return found, time.perf_counter(), cpu

        if (await reached(1, _PATIENCE_S))[0] == 0:
            raise TimeoutError(f"{group} consumed nothing within {_PATIENCE_S:.0f} s; see its log")
        first, began, before = await reached(int(_BEGUN * BACKLOG), LONGEST_S / 6)
        last, ended, after = await reached(int(_ENDED * BACKLOG), LONGEST_S)
    events = last - first
    return {
        "events": events,
        "events_per_s": round(events / (ended - began), 1),
        "cpu_us_per_event": {
            name: round(1e6 * (after[name] - before[name]) / events, 1) for name in processes
        },
    }


def wrong_profiles(settings: Settings, sent: Counter[str]) -> int:
    """Profiles whose features do not reflect all that was sent of them."""
    reader = IntentReader(settings)
    names = list(sent)
    wrong = 0
    for start in range(0, len(names), MAX_PROFILES):
        some = names[start : start + MAX_PROFILES]
        for name, intent in zip(some, reader.read(some), strict=True):
            wrong += intent.row is None or intent.row.sequence_no != sent[name]
    return wrong


async def until_no_lag(settings: Settings) -> None:
    """Return when the worker has consumed all there is."""
    async with LagReader(settings) as reader:
        names = [settings.topic(topics.BROWSE_EVENTS)]
        while any(one.lag for one in await reader.read(settings.consumer_group, names)):
            await asyncio.sleep(_POLL_S)


async def freshness(settings: Settings, rate: int) -> dict[str, Any]:
    """Of steady events at a rate."""
    stream = SteadyEvents(settings, rate, STEADY_PROFILES, name=f"steady-{rate}")
    async with stream.flowing():
        await asyncio.sleep(WARM_UP_S)
        counted_from = time.time()
        await asyncio.sleep(STEADY_S)
    ages = [age for born, age in stream.ages if born >= counted_from]
    p50, p95, p99 = np.percentile(ages, [50, 95, 99]) * 1000
    return {
        "offered_events_per_s": rate,
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "p99_ms": round(float(p99), 1),
        "lost": stream.lost,
    }


@contextmanager
def plain_agent(settings: Settings, app: str, log: Path) -> Iterator[int]:
    """A plain agent that runs while the block does; its process id."""
    command = (sys.executable, "-m", "faust", "-A", f"lab.bench.plain_agent:{app}", "worker")
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, "--without-web", "--loglevel", "warn"],
            env={**os.environ, **worker_environment(settings)},
            stdout=out,
            stderr=out,
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=60)


def measure(stack: Stack, version: str) -> dict[str, Any]:
    """All ways, one after the other, on servers that run."""
    settings = stack.settings
    sent = asyncio.run(send_backlog(settings))
    around = {name: ServerTime(stack.pid(name)) for name in SERVERS}
    stack.start("worker")
    pids = {"process": ServerTime(stack.pid("worker")), **around}
    ways = {WORKER: asyncio.run(worked_off(settings, settings.consumer_group, pids))}
    asyncio.run(until_no_lag(settings))
    wrong = wrong_profiles(settings, sent)
    steady = [asyncio.run(freshness(settings, rate)) for rate in RATES]
    stack.stop_program("worker")
    pinned = settings.model_copy(update={"model_version": version})
    for way, app in PLAIN.items():
        with redis.Redis(port=settings.redis_port) as client:
            client.flushall()
        with plain_agent(pinned, app, stack.logs / f"{app}.log") as pid:
            pids = {"process": ServerTime(pid), **around}
            group = f"plain-{app.replace('_', '-')}"
            ways[way] = asyncio.run(worked_off(settings, group, pids))
    return {"backlog": ways, "wrong_profiles": wrong, "steady": steady}


def ratios(ways: dict[str, Any]) -> dict[str, float]:
    """How many times as fast as each plain agent the worker is."""
    ours = ways[WORKER]["events_per_s"]
    return {way: round(ours / ways[way]["events_per_s"], 1) for way in PLAIN}


def main() -> None:
    """Measure, print the tables, keep the result."""
    out = result_file("worker", __doc__)
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    with servers("kafka", "redis", "triton") as (stack, exports):
        (version,) = exported(exports, 0.0)
        asyncio.run(publish(stack.settings, version, exports=exports))
        result = measure(stack, version)
    result |= {
        "times_as_fast_as": ratios(result["backlog"]),
        "backlog_events": BACKLOG,
        "backlog_profiles": PROFILES,
        "steady_profiles": STEADY_PROFILES,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average_before": round(load, 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": "python -m lab.bench.worker",
    }
    show(result)
    keep(result, out)
    PlainConsole().print(f"Kept in {out}.")


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    console = PlainConsole()
    columns = ("events/s", "the worker is faster by", "CPU µs/event: process", *SERVERS)
    table = Table("way", *columns, title="Working a backlog off")
    ours = result["backlog"][WORKER]["events_per_s"]
    for way, found in result["backlog"].items():
        rate = found["events_per_s"]
        cpu = (f"{value:,.0f}" for value in found["cpu_us_per_event"].values())
        table.add_row(way, f"{rate:,.0f}", f"{ours / rate:.1f}x", *cpu)
    console.print(table)
    table = Table("events/s", "p50 ms", "p95 ms", "p99 ms", "lost", title="Freshness of the worker")
    for row in result["steady"]:
        table.add_row(*(f"{value:,}" for value in row.values()))
    console.print(table)
    console.print(
        f"Profiles with wrong features after the backlog: {result['wrong_profiles']}; "
        f"load average before {result['load_average_before']}."
    )


if __name__ == "__main__":
    main()
