"""What the benchmarks of a running worker share: servers of their own, versions, steady events."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen

import numpy as np
import orjson
import torch
from aiokafka import AIOKafkaProducer
from rich.table import Table

from features.registry.store import apply
from fm_intent.export import export
from infra.local.stack import Stack, on_loopback
from lab.bench.inference import DEPTHS, SERVED_DEPTH, WINDOW, full_windows, unmeasured, untrained
from lab.bench.traffic import look
from stream.domain import topics
from stream.kafka.admin import create_topics
from stream.kafka.connection import client_options
from stream.kafka.consumer import Consumer
from stream.plain_text import PlainConsole
from stream.ports import free_ports
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_TICK_S: Final = 0.02
_PATIENCE_S: Final = 60.0


@contextmanager
def servers(*programs: str, **changed: object) -> Iterator[tuple[Stack, Path]]:
    """A stack on free ports of loopback that runs these programs, with topics and features.

    Also the model repository that it loads versions from, which is empty. All of it is gone after
    the block.

    Args:
        programs: their names.
        changed: settings that aren't to be those of the environment.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        exports = home / "exports"
        names = [name for name in Settings.model_fields if name.endswith("_port")]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        settings = on_loopback(
            Settings().model_copy(
                update={
                    **changed,
                    **ports,
                    "data_dir": home / "worker",
                    "feature_registry": home / "registry.db",
                    "triton_models": home / "stack" / "triton" / "models",
                }
            )
        )
        with Stack(home / "stack", settings, exports) as stack:
            stack.start(*programs)
            asyncio.run(create_topics(settings))
            apply(settings)
            yield stack, exports


def exported(exports: Path, *noises: float) -> list[str]:
    """Untrained versions of the served size, one for each noise on its weights.

    Their arithmetic is that of trained ones.
    """
    versions = []
    for noise in noises:
        model = untrained(DEPTHS[SERVED_DEPTH])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
        versions.append(str(export(model, unmeasured(), full_windows(2, WINDOW), exports).version))
    return versions


@dataclass
class SteadyEvents:
    """Events of profiles in turn, at a steady rate; and when their features were announced.

    An event's age is the time from its broker timestamp to the announcement of its features, which
    follows their write to the online store.

    Attributes:
        settings: where Kafka is.
        events_per_s: the rate.
        profiles: how many.
        name: of the profiles, before their number.
        sent: events of each profile.
        ages: broker time of an event, and the seconds to its features, of each announced row.
        versions: rows announced by each model version.
        newest: `sequence_no` last announced, by profile.
    """

    settings: Settings
    events_per_s: int
    profiles: int
    name: str = "member"
    sent: Counter[str] = field(default_factory=Counter)
    ages: list[tuple[float, float]] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    newest: dict[str, int] = field(default_factory=dict)
    _born: dict[str, float] = field(default_factory=dict)
    _number: int = 0

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Events flow while the block runs; its end waits until all that were sent are announced.

        What is not within a minute is `lost`.
        """
        options = client_options(self.settings)
        consumer = Consumer(self.settings.topic(topics.INTENT_FEATURES), **options)
        async with AIOKafkaProducer(**options) as producer, consumer:
            watching = asyncio.create_task(self._watch(consumer))
            sending = asyncio.create_task(self._send(producer))
            try:
                yield
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            deadline = time.monotonic() + _PATIENCE_S
            while self.lost and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            watching.cancel()

    @property
    def lost(self) -> int:
        """Events that no announced row reflects, or not yet."""
        return (self.sent - Counter(self.newest)).total()

    async def _send(self, producer: AIOKafkaProducer) -> None:
        started = time.perf_counter()
        begun = self._number
        topic = self.settings.topic(topics.BROWSE_EVENTS)
        while True:
            due = begun + int((time.perf_counter() - started) * self.events_per_s)
            while self._number < due:
                profile = f"{self.name}-{self._number % self.profiles}"
                event = look(self._number, profile, round(time.time() * 1000))
                self._number += 1
                self.sent[profile] += 1
                delivery = await producer.send(topic, orjson.dumps(event), key=profile.encode())
                delivery.add_done_callback(
                    lambda one, event_id=event["event_id"]: self._born.update(
                        {event_id: one.result().timestamp / 1000}
                    )
                )
            await asyncio.sleep(_TICK_S)

    async def _watch(self, consumer: Consumer) -> None:
        async for record in consumer:
            row = orjson.loads(record.value)
            if not row["profile_id"].startswith(f"{self.name}-"):
                continue
            self.versions[row["model_version"]] += 1
            self.newest[row["profile_id"]] = row["sequence_no"]
            born = self._born.pop(row["last_event_id"], None)
            if born is not None:
                self.ages.append((born, record.timestamp / 1000 - born))


def freshness(
    ages: list[tuple[float, float]], phase: str, starts: float, ends: float
) -> dict[str, Any]:
    """Freshness of the events that were born in a span, in milliseconds."""
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


def show_phases(result: dict[str, Any], events_per_s: int) -> None:
    """Print the phases' freshness as a table, and all else that was measured a line each."""
    console = PlainConsole()
    table = Table(title=f"Freshness at {events_per_s} events/s")
    for name in result["phases"][0]:
        table.add_column(name.replace("_", " "), justify="left" if name == "phase" else "right")
    for row in result["phases"]:
        table.add_row(*(f"{value:,}" if name != "phase" else value for name, value in row.items()))
    console.print(table)
    for name, value in result.items():
        if name != "phases":
            console.print(f"{name}: {value}")


def metrics_of(settings: Settings) -> Callable[[str], float]:
    """What the worker's metrics are now, by name and labels; 0 where there is none."""
    with urlopen(f"http://127.0.0.1:{settings.metrics_port}/metrics") as page:
        lines = page.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return lambda name: float(values.get(name, 0))
