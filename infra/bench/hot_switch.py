"""What events feel of a model version that is published, and of going back: freshness by phase.

    python -m infra.bench.hot_switch

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
import json
import os
import platform
import shutil
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen

import numpy as np
import orjson
import torch
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from features.store import apply
from fm_intent.export import export
from infra.bench.inference import (
    DEPTHS,
    SERVED_DEPTH,
    WINDOW,
    full_windows,
    unmeasured,
    untrained,
)
from infra.local.paths import MODEL_REPOSITORY
from infra.local.ports import free_ports
from infra.local.stack import Stack, on_loopback
from infra.local.topics import create_topics
from infra.release import publish, rollback
from stream import topics
from stream.kafka import client_options
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

RESULTS: Final = Path(__file__).parents[2] / "docs" / "results" / "hot_switch.json"
EVENTS_PER_S: Final = 500
PROFILES: Final = 1_000
TITLES: Final = 3_000
WARM_UP_S: Final = 30.0
QUIET_S: Final = 30.0
SHADOW_SHARE: Final = 0.1
SHADOW_S: Final = 20.0
AFTER_S: Final = 10.0
"""Of a switch, in which caches are cold and workers take it up: part of the phase."""

LOADING: Final = "validate, load, compare"
PUBLICATION: Final = (LOADING, "shadow", "switch")
"""Phases of a publication."""

_TICK_S: Final = 0.02


@dataclass
class Stream:
    """Events of all profiles in turn, at a steady rate; and when their features were announced.

    Attributes:
        sent: events of each profile.
        ages: broker time of an event, and the seconds to its features, of each announced row.
        versions: rows announced by each model version.
        newest: `sequence_no` last announced, by profile.
    """

    settings: Settings
    sent: Counter[str] = field(default_factory=Counter)
    ages: list[tuple[float, float]] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    newest: dict[str, int] = field(default_factory=dict)
    _born: dict[str, float] = field(default_factory=dict)
    _number: int = 0

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Events flow while the block runs; at its end, all that were sent have been announced."""
        options = client_options(self.settings)
        consumer = AIOKafkaConsumer(self.settings.topic(topics.INTENT_FEATURES), **options)
        async with AIOKafkaProducer(**options) as producer, consumer:
            watching = asyncio.create_task(self._watch(consumer))
            sending = asyncio.create_task(self._send(producer))
            try:
                yield
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            while self.newest != self.sent:
                await asyncio.sleep(0.1)
            watching.cancel()

    async def _send(self, producer: AIOKafkaProducer) -> None:
        started = time.perf_counter()
        begun = self._number
        topic = self.settings.topic(topics.BROWSE_EVENTS)
        while True:
            due = begun + int((time.perf_counter() - started) * EVENTS_PER_S)
            while self._number < due:
                profile = f"member-{self._number % PROFILES}"
                event_id = f"event-{self._number}"
                event = {
                    "event_id": event_id,
                    "profile_id": profile,
                    "event_type": "title_open",
                    "occurred_at_ms": round(time.time() * 1000),
                    "title_id": f"title-{self._number * 7 % TITLES}",
                }
                self._number += 1
                self.sent[profile] += 1
                delivery = await producer.send(topic, orjson.dumps(event), key=profile.encode())
                delivery.add_done_callback(
                    lambda one, event_id=event_id: self._born.update(
                        {event_id: one.result().timestamp / 1000}
                    )
                )
            await asyncio.sleep(_TICK_S)

    async def _watch(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            row = orjson.loads(record.value)
            self.versions[row["model_version"]] += 1
            self.newest[row["profile_id"]] = row["sequence_no"]
            born = self._born.pop(row["last_event_id"], None)
            if born is not None:
                self.ages.append((born, record.timestamp / 1000 - born))


async def measure(settings: Settings, exports: Path, versions: list[str]) -> dict[str, Any]:
    """The phases' freshness, and everything that went wrong."""
    stream = Stream(settings)
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
        _freshness(stream.ages, name, began[name], began[following])
        for name, following in pairwise(order)
    ]
    p99 = {one["phase"]: one["p99_ms"] for one in phases}
    metrics = _metrics(settings)
    return {
        "phases": phases,
        "p99_ratio": round(max(p99[name] for name in PUBLICATION) / p99["before"], 2),
        "events": stream.sent.total(),
        "failed_inferences": metrics('intentstream_retries_total{dependency="triton"}'),
        "lost_events": (stream.sent - Counter(stream.newest)).total(),
        "rows_by_version": dict(stream.versions),
        "shadow_rows_compared": metrics('intentstream_shadow_rows_total{outcome="compared"}'),
    }


async def _release_times(settings: Settings) -> list[float]:
    """When each release was written, in seconds since the epoch."""
    consumer = AIOKafkaConsumer(
        settings.topic(topics.MODEL_RELEASES),
        **client_options(settings),
        auto_offset_reset="earliest",
    )
    async with consumer:
        records = await consumer.getmany(timeout_ms=5_000)
    return [record.timestamp / 1000 for some in records.values() for record in some]


def _freshness(
    ages: list[tuple[float, float]], phase: str, starts: float, ends: float
) -> dict[str, Any]:
    """Freshness of the events that were born in a span."""
    inside = [age for born, age in ages if starts <= born < ends]
    p50, p99 = np.percentile(inside, [50, 99]) * 1000
    return {
        "phase": phase,
        "seconds": round(ends - starts, 1),
        "events": len(inside),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "max_ms": round(max(inside) * 1000, 1),
    }


def _publish_apart(settings: Settings, version: str, exports: Path) -> None:
    """In a process of its own, as an operator would."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_publish, settings, version, exports).result()


def _publish(settings: Settings, version: str, exports: Path) -> None:
    os.nice(10)
    asyncio.run(publish(settings, version, share=SHADOW_SHARE, shadow_s=SHADOW_S, exports=exports))


def _metrics(settings: Settings) -> Callable[[str], float]:
    with urlopen(f"http://127.0.0.1:{settings.metrics_port}/metrics") as page:
        lines = page.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return lambda name: float(values.get(name, 0))


def exported(exports: Path) -> list[str]:
    """Two versions of the served size that answer a little differently."""
    versions = []
    for noise in (0.0, 0.001):
        model = untrained(DEPTHS[SERVED_DEPTH])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
        versions.append(str(export(model, unmeasured(), full_windows(2, WINDOW), exports).version))
    return versions


def main() -> None:
    """Measure, print the table, keep the result."""
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        exports = Path(
            shutil.copytree(
                MODEL_REPOSITORY, home / "exports", ignore=shutil.ignore_patterns("[0-9]*")
            )
        )
        names = [name for name in Settings.model_fields if name.endswith("_port")]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        settings = on_loopback(
            Settings().model_copy(
                update={
                    **ports,
                    "data_dir": home / "worker",
                    "feature_registry": home / "registry.db",
                    "triton_models": home / "stack" / "triton" / "models",
                }
            )
        )
        versions = exported(exports)
        with Stack(home / "stack", settings, exports) as stack:
            stack.start("kafka", "redis", "triton", "guard")
            asyncio.run(create_topics(settings))
            apply(settings)
            asyncio.run(publish(settings, versions[0], exports=exports))
            stack.start("worker")
            result = asyncio.run(measure(settings, exports, versions))
    result |= {
        "offered_events_per_s": EVENTS_PER_S,
        "profiles": PROFILES,
        "shadow_share": SHADOW_SHARE,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average_before": round(load, 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": "python -m infra.bench.hot_switch",
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    console = Console()
    table = Table(title=f"Freshness at {EVENTS_PER_S} events/s")
    for name in result["phases"][0]:
        table.add_column(name.replace("_", " "), justify="left" if name == "phase" else "right")
    for row in result["phases"]:
        table.add_row(*(f"{value:,}" if name != "phase" else value for name, value in row.items()))
    console.print(table)
    for name, value in result.items():
        if name != "phases":
            console.print(f"{name}: {value}")


if __name__ == "__main__":
    main()
