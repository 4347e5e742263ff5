"""Measures freshness from outside: how long after Kafka took an event its features are readable.

A process of its own (`python -m lab.replay.prober --output FILE`) that takes nobody's word: it
reads the event topics with a consumer of its own, picks events that are the newest of their profile
and asks Feast for the profile until the answer shows the event, or a newer one. It ends when its
standard input does, so it never outlives who started it. `Prober` starts and stops it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

import numpy as np
from aiokafka import TopicPartition

from features.reading.reader import IntentReader
from infra.local.programs import worker_environment
from lab.exceptions import ProberError
from stream.domain.event_types import STATELESS
from stream.domain.events import decode
from stream.domain.labels import hash64
from stream.domain.topics import EVENT_TOPICS
from stream.exceptions import BadRecordError
from stream.kafka.connection import running
from stream.kafka.consumer import Consumer
from stream.settings import Settings, settings

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray


READY: Final = "ready"
_PROBE_EVERY_S: Final = 1.0
_EVENTS_PER_PROBE: Final = 10
"""Picked and asked for together, whether the last ones have been seen or not: asking all the time
would take the worker's CPU, and picking none while it is slow would hide that it is."""
_ASK_EVERY_S: Final = 0.005
_RESOLUTION: Final = 0.05
"""An event that has been waited for so long is asked for after this share of that time again."""
_GIVE_UP_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Samples:
    """What a prober has measured so far.

    Attributes:
        freshness_ms: of the events whose features, or newer ones, became readable, float64 [N].
        superseded: how many of them were first seen as a newer event of their profile.
        unseen: events that were never seen in their profile's features.
    """

    freshness_ms: NDArray[np.float64]
    superseded: int
    unseen: int

    def percentile(self, percent: float) -> float | None:
        """Freshness in ms that `percent` of the sampled events stay within; None without any."""
        if not len(self.freshness_ms):
            return None
        return float(np.percentile(self.freshness_ms, percent))


def read_samples(path: Path) -> Samples:
    """The samples that a prober, running or ended, has written to `path`."""
    lines = path.read_text().splitlines() if path.exists() else []
    samples = []
    for line in lines:
        with suppress(json.JSONDecodeError):  # the line that is being written right now
            samples.append(json.loads(line))
    seen = [sample for sample in samples if sample["freshness_ms"] is not None]
    return Samples(
        freshness_ms=np.array([sample["freshness_ms"] for sample in seen], np.float64),
        superseded=sum(sample["superseded"] for sample in seen),
        unseen=len(samples) - len(seen),
    )


class Prober:
    """A prober's process, which lives as long as the `with` block.

    Args:
        settings: where Kafka and Feast's online store are.
        output: file for its samples; replaced.
        log: file for its messages; replaced.
    """

    def __init__(self, settings: Settings, output: Path, log: Path) -> None:
        self._settings = settings
        self._output = output
        self._log = log

    def __enter__(self) -> Self:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("INTENT_")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "lab.replay.prober", "--output", str(self._output)],
                env=environment | worker_environment(self._settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C reaches the caller alone, who ends it when all is counted.
                start_new_session=True,
            )
        return self

    def wait(self) -> None:
        """Wait until it watches the topics.

        Raises:
            ProberError: when it does not get so far.
        """
        assert self._process.stdout is not None
        if self._process.stdout.readline().decode().strip() != READY:
            raise ProberError(f"the prober did not start; see {self._log}")

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def samples(self) -> Samples:
        """The samples so far."""
        return read_samples(self._output)


@dataclass(frozen=True, slots=True)
class _Probe:
    """An event that is waited for; `place` orders the events of a profile."""

    place: tuple[int, int]
    produced_ms: int
    since: float


class _Probing:
    """The prober's two tasks and what they share: the newest events, and those waited for."""

    def __init__(self, config: Settings, reader: IntentReader, output: TextIO) -> None:
        self._config = config
        self._reader = reader
        self._output = output
        self._newest: dict[str, tuple[int, int]] = {}
        self._probes: dict[str, _Probe] = {}
        self._wanted = 0

    async def watch(self, consumer: Any) -> None:
        """Follow the topics; pick the next events whenever some are wanted."""
        plain = {self._config.topic(name): name for name in EVENT_TOPICS}
        async for record in consumer:
            try:
                event = decode(
                    plain[record.topic],
                    record.key,
                    record.value,
                    broker_time_ms=record.timestamp,
                    headers=record.headers,
                )
            except BadRecordError:
                continue
            oldest_ms = record.timestamp - self._config.allowed_lateness_s * 1000
            if event.event_type in STATELESS or event.occurred_at_ms < oldest_ms:
                continue  # leaves no trace in the features
            place = (event.occurred_at_ms, hash64(event.event_id))
            if place <= self._newest.get(event.profile_id, (-1, 0)):
                continue
            self._newest[event.profile_id] = place
            if self._wanted and event.profile_id not in self._probes:
                self._wanted -= 1
                self._probes[event.profile_id] = _Probe(place, record.timestamp, time.monotonic())

    async def ask(self) -> None:
        """Wish for events now and then, and ask for their profiles until they have been seen."""
        try:
            picked_at = -math.inf
            while True:
                now = time.monotonic()
                if now - picked_at >= _PROBE_EVERY_S:
                    picked_at, self._wanted = now, _EVENTS_PER_PROBE
                if self._probes:
                    await self._ask_once()
                youngest = max((probe.since for probe in self._probes.values()), default=now)
                await asyncio.sleep(max(_ASK_EVERY_S, _RESOLUTION * (now - youngest)))
        finally:
            for probe in self._probes.values():
                self._report(probe, None, superseded=False)
            await self._reader.close()

    async def _ask_once(self) -> None:
        answers = await self._reader.read_async(list(self._probes))
        now_ms = time.time() * 1000
        for answer in answers:
            probe = self._probes[answer.profile_id]
            row = answer.row
            place = (row.last_event_at_ms, hash64(row.last_event_id)) if row else (-1, 0)
            if place >= probe.place:
                self._report(probe, now_ms - probe.produced_ms, superseded=place > probe.place)
                del self._probes[answer.profile_id]
            elif time.monotonic() - probe.since > _GIVE_UP_S:
                self._report(probe, None, superseded=False)
                del self._probes[answer.profile_id]

    def _report(self, probe: _Probe, freshness_ms: float | None, *, superseded: bool) -> None:
        sample = {
            "produced_ms": probe.produced_ms,
            "freshness_ms": freshness_ms,
            "superseded": superseded,
        }
        self._output.write(json.dumps(sample) + "\n")
        self._output.flush()


async def probe(config: Settings, output: TextIO) -> None:
    """Probe until standard input ends.

    Args:
        config: where Kafka and Feast's online store are.
        output: where each sample goes, as one JSON object per line.
    """
    reader = IntentReader(config)
    async with running(Consumer, config) as consumer:
        partitions = [
            TopicPartition(config.topic(name), partition)
            for name in EVENT_TOPICS
            for partition in range(config.topic_partitions)
        ]
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        for partition in partitions:
            await consumer.position(partition)
        probing = _Probing(config, reader, output)
        watching = asyncio.create_task(probing.watch(consumer))
        asking = asyncio.create_task(probing.ask())
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        print(READY, flush=True)
        try:
            done, _ = await asyncio.wait(
                [watching, asking, ended], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {ended}:
                task.result()
        finally:
            for task in (watching, asking):
                task.cancel()
            await asyncio.gather(watching, asking, return_exceptions=True)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Measure freshness from outside.")
    parser.add_argument("--output", type=Path, required=True, help="file for the samples")
    arguments = parser.parse_args()
    with arguments.output.open("w") as output:
        asyncio.run(probe(settings(), output))


if __name__ == "__main__":
    _main()
