"""What events feel of a model version that is published, and of going back: freshness by phase.

    python -m lab.bench.hot_switch

Starts Kafka, Redis, Triton and a worker on free ports of loopback, sends a steady stream of events,
and publishes a second version meanwhile, as `intentstream model publish` does: validated, loaded,
compared, shadowed, switched; then it goes back. The ratio is that of the worst of the publication's
phases to the time before, of their 99th percentiles. An event's freshness is the time from its
broker timestamp to the announcement of its features, which follows their write to the online store.
The networks are untrained: their arithmetic is that of trained ones. Prints its table and writes
`docs/results/hot_switch.json`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from intentstream.publishing import publish, rollback
from lab.bench.results import keep, result_file
from lab.bench.running_worker import (
    SteadyEvents,
    exported,
    freshness,
    metrics_of,
    servers,
    show_phases,
)
from stream.domain import topics
from stream.kafka.connection import client_options
from stream.kafka.consumer import Consumer

if TYPE_CHECKING:
    from stream.settings import Settings

EVENTS_PER_S: Final = 500
PROFILES: Final = 1_000
WARM_UP_S: Final = 30.0
QUIET_S: Final = 30.0
SHADOW_SHARE: Final = 0.1
SHADOW_S: Final = 20.0
AFTER_S: Final = 10.0
"""Of a switch, in which caches are cold and workers take it up: part of the phase."""

LOADING: Final = "validate, load, compare"
PUBLICATION: Final = (LOADING, "shadow", "switch")
"""Phases of a publication."""


async def measure(settings: Settings, exports: Path, versions: list[str]) -> dict[str, Any]:
    """The phases' freshness, and everything that went wrong."""
    stream = SteadyEvents(settings, EVENTS_PER_S, PROFILES)
    began: dict[str, float] = {}
    async with stream.flowing():
        await asyncio.sleep(WARM_UP_S)
        began["before"] = time.time()
        await asyncio.sleep(QUIET_S)
        began[LOADING] = time.time()
        await asyncio.to_thread(_publish_apart, settings, versions[1], exports)
        await asyncio.sleep(AFTER_S)
        began["after"] = time.time()
        await asyncio.sleep(QUIET_S)
        began["rollback"] = time.time()
        await rollback(settings, exports=exports)
        await asyncio.sleep(AFTER_S)
        began["end"] = time.time()
    _, began["shadow"], began["switch"], _ = await _release_times(settings)
    order = sorted(began, key=lambda name: began[name])
    phases = [
        freshness(stream.ages, name, began[name], began[following])
        for name, following in pairwise(order)
    ]
    p99 = {one["phase"]: one["p99_ms"] for one in phases}
    metrics = metrics_of(settings)
    return {
        "phases": phases,
        "p99_ratio": round(max(p99[name] for name in PUBLICATION) / p99["before"], 2),
        "events": stream.sent.total(),
        "failed_inferences": metrics('intentstream_retries_total{dependency="triton"}'),
        "lost_events": stream.lost,
        "rows_by_version": dict(stream.versions),
        "shadow_rows_compared": metrics('intentstream_shadow_rows_total{outcome="compared"}'),
    }


async def _release_times(settings: Settings) -> list[float]:
    """When each release was written, in seconds since the epoch."""
    consumer = Consumer(
        settings.topic(topics.MODEL_RELEASES),
        **client_options(settings),
        auto_offset_reset="earliest",
    )
    async with consumer:
        records = await consumer.getmany(timeout_ms=5_000)
    return [record.timestamp / 1000 for some in records.values() for record in some]


def _publish_apart(settings: Settings, version: str, exports: Path) -> None:
    """In a process of its own, as an operator would."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_publish, settings, version, exports).result()


def _publish(settings: Settings, version: str, exports: Path) -> None:
    os.nice(10)
    asyncio.run(publish(settings, version, share=SHADOW_SHARE, shadow_s=SHADOW_S, exports=exports))


def main() -> None:
    """Measure, print the table, keep the result."""
    out = result_file("hot_switch", __doc__)
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    with servers("kafka", "redis", "triton", "guard") as (stack, exports):
        versions = exported(exports, 0.0, 0.001)
        asyncio.run(publish(stack.settings, versions[0], exports=exports))
        stack.start("worker")
        result = asyncio.run(measure(stack.settings, exports, versions))
    result |= {
        "offered_events_per_s": EVENTS_PER_S,
        "profiles": PROFILES,
        "shadow_share": SHADOW_SHARE,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average_before": round(load, 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": "python -m lab.bench.hot_switch",
    }
    keep(result, out)
    show_phases(result, EVENTS_PER_S)


if __name__ == "__main__":
    main()
