"""What tests of running workers share: start one, send events, read back what came of them."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from feast import FeatureStore

from features.registry.store import open_store
from infra.local.programs import worker_environment
from stream.domain import topics
from stream.exceptions import BrokerUnavailableError, StoreUnavailableError
from stream.kafka.connection import client_options
from stream.kafka.consumer import Consumer
from stream.kafka.lag import LagReader
from stream.patience import Patience
from stream.settings import Settings

ANSWER_S: Final = 60
"""What an answer may take on a busy machine, where it takes milliseconds on a free one."""

HANG_S: Final = 1800
"""A command that takes longer hangs, however busy the machine is."""

_numbers = itertools.count(1)

# To read the registry anew takes longer than the feature.
_stores: dict[tuple[str, str], FeatureStore] = {}


def title_open(profile_id: str, **fields: Any) -> dict[str, Any]:
    """A valid browse event that no other test sends."""
    number = next(_numbers)
    return {
        "event_id": f"event-{number}",
        "profile_id": profile_id,
        "event_type": "title_open",
        "occurred_at_ms": round(time.time() * 1000),
        "title_id": f"title-{number}",
        **fields,
    }


def send(
    settings: Settings,
    events: Iterable[dict[str, Any] | tuple[bytes, bytes]],
    headers: dict[str, bytes] | None = None,
) -> None:
    """Produce browse events, or raw (key, value) records, and wait for their delivery."""

    async def produce() -> None:
        producer = AIOKafkaProducer(**client_options(settings), linger_ms=5)
        await producer.start()
        try:
            topic = settings.topic(topics.BROWSE_EVENTS)
            sent = [
                await producer.send(topic, value, key=key, headers=list((headers or {}).items()))
                for key, value in (
                    event
                    if isinstance(event, tuple)
                    else (event["profile_id"].encode(), orjson.dumps(event))
                    for event in events
                )
            ]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    asyncio.run(produce())


def lag(settings: Settings) -> int:
    """The group's lag over all that it consumes."""

    async def read() -> int:
        names = [settings.topic(name) for name in topics.CONSUMED_TOPICS]
        async with LagReader(settings) as reader:
            return sum(each.lag for each in await reader.read(settings.consumer_group, names))

    return asyncio.run(read())


def records(settings: Settings, name: str) -> list[Any]:
    """All records on a topic, partition by partition."""

    async def read() -> list[Any]:
        consumer = Consumer(**client_options(settings))
        await consumer.start()
        try:
            places = [
                TopicPartition(settings.topic(name), partition)
                for partition in range(settings.topic_partitions)
            ]
            found = []
            for place, end in (await consumer.end_offsets(places)).items():
                consumer.assign([place])
                await consumer.seek_to_beginning(place)
                found += [record async for record in consumer.until({place: end})]
            return found
        finally:
            await consumer.stop()

    return asyncio.run(read())


def online(settings: Settings, profile_id: str, feature: str = "last_event_id") -> Any:
    """One feature of a profile as Feast's own API returns it."""
    place = str(settings.feature_registry), settings.redis_url.get_secret_value()
    if place not in _stores:
        _stores[place] = open_store(settings)
    answer = _stores[place].get_online_features(
        features=[f"profile_intent:{feature}"], entity_rows=[{"profile_id": profile_id}]
    )
    return answer.to_dict()[feature][0]


def http(settings: Settings, path: str) -> tuple[int, str]:
    """Status and text of the worker's HTTP endpoint; status 0 when nothing listens."""
    url = f"http://127.0.0.1:{settings.metrics_port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@contextmanager
def worker(
    settings: Settings, log: Path, *command: str, wait: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process of these settings; `command` is what `python -m` runs, ours by default.

    It is terminated at the end; `wait` waits until it is ready first.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *(command or ("intentstream", "worker"))],
            env={**os.environ, **worker_environment(settings)},
            stdout=out,
            stderr=out,
        )
        try:
            if wait:
                until(lambda: http(settings, "/ready")[0] == 200, f"a ready worker; see {log}")
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            exit_code(process)


def exit_code(process: subprocess.Popen[Any]) -> int:
    """What a process ends with, once it does."""
    until(lambda: process.poll() is not None, f"the end of {process.args!r}")
    return process.returncode


def until(condition: Callable[[], bool], what: str, within_s: float = 90) -> None:
    """Wait for `condition`; it failing to come true is the test's failure.

    A server that can't be asked now is asked again. `within_s` is the time on a free machine.
    """
    patience = Patience(within_s)
    unanswered: Exception | None = None
    while True:
        try:
            if condition():
                return
        except (BrokerUnavailableError, StoreUnavailableError, KafkaError) as error:
            unanswered = error
        if patience.over:
            raise AssertionError(f"not within {patience.waited_s:.0f} s: {what}") from unanswered
        time.sleep(0.1)
