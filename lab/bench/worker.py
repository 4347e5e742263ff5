"""What one worker takes, with all that it promises, beside the code of before and plain programs.

    python -m lab.bench.worker [--before REV]

Each way works each traffic of `lab.bench.traffic` off: the worker of this code, the worker of REV,
a plain `aiokafka` consumer, and plain Faust agents in batches and event by event. Each has a Kafka,
a Redis and a Triton of its own, started for it on free ports of loopback, and a version of the
model that its code exported. All events are there before it starts. Progress is that of committed
offsets, once all is warm; the CPU time is that of each process, Triton's with the model in it; hits
and misses of the model's cache are those that Triton counts meanwhile. Then steady events at
several rates, and the freshness of our codes. The network is untrained: its arithmetic is that of a
trained one.

Of this code's worker each profile's features are looked at afterwards, but for those of which it
reported an event as late: they must reflect all that was sent. Another code has other measures.
The code of before takes no part in `many`: it can't read states that this code wrote.

Prints its tables and writes `docs/results/worker.json`, meanwhile beside it what there is so far.
A run of some of it is kept only where `--out` says so, as are all numbers of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shlex
import sys
import time
from collections import defaultdict
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen

import numpy as np
from rich.table import Table

from features.reading.intents import MAX_PROFILES
from features.reading.reader import IntentReader
from infra.local.server_checks import worker_ready
from lab.bench.inference import ServerTime
from lab.bench.results import keep
from lab.bench.revisions import code_of, commit_of
from lab.bench.running_worker import SteadyEvents, servers
from lab.bench.sending import send
from lab.bench.traffic import MANY_PROFILES, MEMBERS, NEW_PROFILES, TRAFFICS
from lab.bench.ways import BEFORE, WORKER, Way, ways
from lab.exceptions import NothingDoneError, TooFewEventsError, WayEndedError
from stream.domain.topics import EVENT_TOPICS, LATE_EVENTS
from stream.home import HOME
from stream.kafka.connection import partitions_of, running
from stream.kafka.consumer import Consumer
from stream.kafka.lag import LagReader
from stream.plain_text import PlainConsole
from stream.steps import step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infra.local.stack import Stack
    from stream.settings import Settings

EVENTS: Final = 300_000
SECONDS: Final = 30.0
"""That one way of working a traffic off is watched, at most."""

WARMING_S: Final = 5.0
WARMING: Final = 0.25
"""Before it is: so long, or until so much is worked off. A broker's code is compiled meanwhile."""

LATENESS_S: Final = 90 * 86_400
"""Allowed: the members' events are of days that are over."""

STEADY: Final = "steady"
RATES: Final = (100, 500, 1_000, 2_000, 5_000)
STEADY_PROFILES: Final = 1_000
STEADY_WARMING_S: Final = 5.0
STEADY_S: Final = 20.0

SERVERS: Final = ("triton", "redis", "kafka")

_POLL_S: Final = 0.1
_ENDED: Final = 0.95
_PATIENCE_S: Final = 300.0
_CACHE: Final = "fm_intent_cache_"


def cache_counts(settings: Settings) -> dict[str, float]:
    """What the model's cache has counted, of all versions."""
    url = f"http://127.0.0.1:{settings.triton_metrics_port}/metrics"
    with urlopen(url) as page:
        return counted(page.read().decode())


def counted(metrics: str) -> dict[str, float]:
    """The sums of the cache's counters on a page of Triton's metrics, by their short names."""
    counts: dict[str, float] = defaultdict(float)
    for line in metrics.splitlines():
        name, _, rest = line.partition("{")
        if name.startswith(_CACHE) and name.endswith("_total"):
            counts[name.removeprefix(_CACHE).removesuffix("_total")] += float(
                rest.rsplit(" ", 1)[1]
            )
    return counts


async def worked_off(
    settings: Settings,
    group: str,
    events: int,
    seconds: float,
    processes: dict[str, ServerTime],
    has_ended: Callable[[], bool],
) -> dict[str, Any]:
    """Events/s of a group amid all of them, CPU time per event by process, and the model's cache.

    Args:
        settings: where the servers are.
        group: whose commits tell how far it is.
        events: how many there are.
        seconds: to watch it at most, once it is warm.
        processes: whose CPU time is told, by name.
        has_ended: whether the program has; asked while it is waited for.

    Raises:
        NothingDoneError: when the group consumes nothing.
        TooFewEventsError: when it was too fast to be seen.
        WayEndedError: when the program ended meanwhile.
    """
    topics = [settings.topic(name) for name in EVENT_TOPICS]
    async with LagReader(settings) as reader:

        async def reached(
            count: float, within_s: float
        ) -> tuple[int, float, dict[str, float], dict[str, float]]:
            deadline = time.monotonic() + within_s
            while True:
                found = sum(one.committed or 0 for one in await reader.read(group, topics))
                if found >= count or time.monotonic() > deadline or has_ended():
                    break
                await asyncio.sleep(_POLL_S)
            if has_ended():
                raise WayEndedError(f"what {group} is the group of ended by itself")
            cpu = {name: process.now() for name, process in processes.items()}
            return found, time.perf_counter(), cpu, cache_counts(settings)

        if (await reached(1, _PATIENCE_S))[0] == 0:
            raise NothingDoneError(f"{group} consumes nothing; see the end of its log")
        first, began, cpu, cache = await reached(WARMING * events, WARMING_S)
        last, ended, cpu_then, cache_then = await reached(_ENDED * events, seconds)
    done = last - first
    if not done:
        raise TooFewEventsError(f"{group} was done with {events:,} events at once; give it more")
    return {
        "events": done,
        "events_per_s": round(done / (ended - began), 1),
        "cpu_us_per_event": {
            name: round(1e6 * (cpu_then[name] - cpu[name]) / done, 1) for name in processes
        },
        "cache": {name: round(value - cache.get(name, 0), 3) for name, value in cache_then.items()},
    }


def wrong_profiles(settings: Settings, expected: Mapping[str, int]) -> int:
    """Profiles whose features don't reflect all that was sent of them."""
    reader = IntentReader(settings)
    names = list(expected)
    wrong = 0
    for start in range(0, len(names), MAX_PROFILES):
        some = names[start : start + MAX_PROFILES]
        for name, intent in zip(some, reader.read(some), strict=True):
            wrong += (intent.row.sequence_no if intent.row else 0) != expected[name]
    return wrong


async def late_profiles(settings: Settings) -> set[str]:
    """Profiles of which the worker reported an event as too late for its window.

    The topics of a backlog are read side by side, each at a pace of its own.
    """
    places = await partitions_of(settings, settings.topic(LATE_EVENTS))
    async with running(Consumer, settings) as consumer:
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        return {record.key.decode() async for record in consumer.until(ends)}


async def until_no_lag(settings: Settings, seconds: float) -> None:
    """Return when the worker has consumed all there is, or makes no progress for so long."""
    topics = [settings.topic(name) for name in EVENT_TOPICS]
    left, since = -1, time.monotonic()
    async with LagReader(settings) as reader:
        while left and time.monotonic() < since + seconds:
            now = sum(one.lag for one in await reader.read(settings.consumer_group, topics))
            if now != left:
                left, since = now, time.monotonic()
            await asyncio.sleep(_POLL_S)


async def freshness(settings: Settings, rate: int) -> dict[str, Any]:
    """Of steady events at a rate."""
    stream = SteadyEvents(settings, rate, STEADY_PROFILES, name=f"steady-{rate}")
    async with stream.flowing():
        await asyncio.sleep(STEADY_WARMING_S)
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


def until_ready(settings: Settings) -> None:
    """Return when the worker takes events.

    Raises:
        NothingDoneError: when it doesn't.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while not worker_ready(settings.metrics_port):
        if time.monotonic() > deadline:
            raise NothingDoneError(f"the worker was not ready within {_PATIENCE_S:.0f} s")
        time.sleep(_POLL_S)


class Run:
    """One run of the benchmark: what it has found so far, and where that is kept.

    Args:
        out: the file of the whole result; None: it is kept nowhere.
        about: what else the result tells.
    """

    def __init__(self, out: Path | None, about: dict[str, Any]) -> None:
        self._out = out
        self.result: dict[str, Any] = {"traffic": {}, STEADY: [], "wrong_profiles": {}, **about}

    def keep(self) -> None:
        """Keep what was found so far, beside the last whole result."""
        if self._out:
            keep(self.result, self._unfinished(self._out))

    def finish(self) -> None:
        """Let what was found take the place of the last whole result."""
        if self._out:
            self.keep()
            self._unfinished(self._out).replace(self._out)

    def take_traffic(
        self, name: str, chosen: Mapping[str, Way], events: int, seconds: float
    ) -> None:
        """Have all ways work a traffic off, one after the other."""
        with step(f"{name}: make {events:,} events"):
            traffic = TRAFFICS[name](events, round(time.time() * 1000))
            expected = traffic.expected()
        rows = self.result["traffic"].setdefault(name, {})
        wrong = self.result["wrong_profiles"].setdefault(name, {})
        for way_name, way in chosen.items():
            if traffic.states and way_name == BEFORE:
                continue  # its worker refuses states that newer code wrote
            with step(f"{name}: {way_name}"), served() as (stack, exports):
                settings = stack.settings
                way.publish(settings, exports)
                asyncio.run(send(settings, traffic, way.changelog))
                with way.running(settings, stack.logs / "way.log") as process:
                    pids = {"process": process.pid, **{one: stack.pid(one) for one in SERVERS}}
                    rows[way_name] = asyncio.run(
                        worked_off(
                            settings,
                            way.group or settings.consumer_group,
                            events,
                            seconds,
                            {one: ServerTime(pid) for one, pid in pids.items()},
                            lambda: process.poll() is not None,
                        )
                    )
                    if way_name == WORKER:
                        asyncio.run(until_no_lag(settings, seconds))
                        late = asyncio.run(late_profiles(settings))
                        rows[way_name]["late_profiles"] = len(late)
                        judged = {one: expected[one] for one in expected.keys() - late}
                        wrong[way_name] = wrong_profiles(settings, judged)
            self.keep()

    def take_steady(self, name: str, way: Way) -> None:
        """Have one of our codes follow steady events at all rates."""
        with served() as (stack, exports):
            way.publish(stack.settings, exports)
            with way.running(stack.settings, stack.logs / "way.log"):
                until_ready(stack.settings)
                for rate in RATES:
                    with step(f"{STEADY}: {name}, {rate:,} events/s"):
                        row = asyncio.run(freshness(stack.settings, rate))
                    self.result[STEADY].append({"way": name, **row})
                    self.keep()

    @staticmethod
    def _unfinished(out: Path) -> Path:
        return out.with_suffix(".unfinished.json")


def served() -> AbstractContextManager[tuple[Stack, Path]]:
    """Servers for one way, with nothing on them."""
    return servers(*SERVERS, allowed_lateness_s=LATENESS_S)


def ratios(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How many times as many events a second the worker does as each other way of a traffic."""
    if WORKER not in rows:
        return {}
    ours = rows[WORKER]["events_per_s"]
    return {name: round(ours / row["events_per_s"], 2) for name, row in rows.items()}


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    console = PlainConsole()
    for name, rows in result["traffic"].items():
        table = Table("way", "events/s", "ours is", title=f"{name}: CPU is µs an event")
        for heading in ("process", *SERVERS, "cache hits", "wrong"):
            table.add_column(heading, justify="right")
        faster = ratios(rows)
        for way, row in rows.items():
            hits, misses = (row["cache"].get(one, 0) for one in ("hits", "misses"))
            table.add_row(
                way,
                f"{row['events_per_s']:,.0f}",
                f"{faster[way]:.2f}x" if way in faster else "",
                *(f"{row['cpu_us_per_event'][one]:,.0f}" for one in ("process", *SERVERS)),
                f"{hits / max(hits + misses, 1):.0%}",
                str(result["wrong_profiles"][name].get(way, "")),
            )
        console.print(table)
    if result[STEADY]:
        table = Table("way", "events/s", "p50 ms", "p95 ms", "p99 ms", "lost", title="Freshness")
        for row in result[STEADY]:
            way, *numbers = row.values()
            table.add_row(way, *(f"{value:,}" for value in numbers))
        console.print(table)


def main() -> None:
    """Measure, print the tables, keep the result."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.bench.worker",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out = HOME / "docs" / "results" / "worker.json"
    names = (*TRAFFICS, STEADY)
    parser.add_argument("--before", metavar="REV", help="also measure the code of a commit")
    parser.add_argument("--traffic", nargs="+", choices=names, help="only these; all by default")
    known = (*ways(HOME),)
    parser.add_argument("--only", nargs="+", choices=known, metavar="WAY", help=", ".join(known))
    parser.add_argument("--events", type=int, default=EVENTS, help=f"of a traffic; {EVENTS:,}")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"to watch a way at most; {SECONDS:g}"
    )
    parser.add_argument("--out", type=Path, help="the result's file; of a whole run worker.json")
    asked = parser.parse_args()
    if asked.only and BEFORE in asked.only and not asked.before:
        parser.error("--only before needs --before REV")
    is_whole = (asked.traffic, asked.only, asked.events, asked.seconds) == (
        *(None, None, EVENTS, SECONDS),
    )
    with ExitStack() as stack:
        before = stack.enter_context(code_of(asked.before)) if asked.before else None
        run = Run(
            asked.out or (out if is_whole else None),
            {
                "events": asked.events,
                "profiles": {"new": NEW_PROFILES, "members": MEMBERS, "many": MANY_PROFILES},
                "steady_profiles": STEADY_PROFILES,
                "commit": commit_of(),
                "before_commit": commit_of(asked.before) if asked.before else None,
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "cpus": os.cpu_count(),
                "load_average_before": round(os.getloadavg()[0], 2),
                "python": platform.python_version(),
                "command": shlex.join(("python", "-m", "lab.bench.worker", *sys.argv[1:])),
            },
        )
        chosen = {
            name: way for name, way in ways(before).items() if not asked.only or name in asked.only
        }
        for name in asked.traffic or names:
            if name != STEADY:
                run.take_traffic(name, chosen, asked.events, asked.seconds)
                continue
            for way_name, way in chosen.items():
                if way.is_ours:
                    run.take_steady(way_name, way)
    show(run.result)
    run.finish()


if __name__ == "__main__":
    main()
