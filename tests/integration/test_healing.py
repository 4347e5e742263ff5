"""A real Redis loses what was published, and a running worker publishes it again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_client
from pydantic import SecretStr

from infra.local.programs import worker_environment
from infra.local.stack import Stack
from stream.kafka.admin import create_topics
from stream.ports import free_ports
from stream.settings import Settings
from tests.conftest import isolate
from tests.workers import http, lag, online, send, title_open, until, worker

PROFILES = [f"member-{number}" for number in range(30)]
SWEEP_S = 5


class Server:
    """A Redis that keeps nothing but what it is told to save."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (self.port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None
        self.client = redis_client.Redis(port=self.port)

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""],
            cwd=self.home,
            stdout=subprocess.DEVNULL,
        )
        until(self.answers, "a Redis that answers")

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis_client.RedisError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis of this module's own, to be lost."""
    one = Server(tmp_path_factory.mktemp("redis"))
    one.start()
    yield one
    one.kill()


@pytest.fixture(scope="module")
def settings(
    stack: Stack,
    kafka: str,
    server: Server,
    served_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """Settings of a worker that has published features of `PROFILES`, and erased another's."""
    home = tmp_path_factory.mktemp("worker")
    config = isolate(stack.settings, home).model_copy(
        update={
            "model_version": served_model,
            "redis_url": SecretStr(f"127.0.0.1:{server.port}"),
            "store_sweep_s": SWEEP_S,
        }
    )
    asyncio.run(create_topics(config))
    with worker(config, home / "worker.log", wait=True):
        send(config, [title_open(name) for name in [*PROFILES, "leaver"] for _ in range(3)])
        until(lambda: sequences(config) == [3] * len(PROFILES), "all features")
        command(config, "erase", "leaver")
        until(lambda: lag(config) == 0, "no lag")
        yield config


def command(settings: Settings, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "intentstream", *arguments],
        env={"PATH": str(Path(sys.executable).parent), **worker_environment(settings)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def sequences(settings: Settings) -> list[int | None]:
    return [online(settings, name, "sequence_no") for name in PROFILES]


def healed(settings: Settings) -> float:
    """Rows that the worker says it has published again."""
    lines = http(settings, "/metrics")[1].splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("intentstream_healed_rows_total{")
    )


def test_what_is_flushed_is_whole_again_without_an_event(
    settings: Settings, server: Server
) -> None:
    before = healed(settings)
    server.client.flushall()
    assert sequences(settings) == [None] * len(PROFILES)
    until(lambda: sequences(settings) == [3] * len(PROFILES), "all features again")
    until(lambda: healed(settings) >= before + len(PROFILES), "the rows in the metrics")


def test_an_erased_profile_stays_erased_when_the_store_has_lost_that(
    settings: Settings, server: Server
) -> None:
    server.client.flushall()
    until(lambda: sequences(settings) == [3] * len(PROFILES), "all features again")
    until(lambda: len(server.client.keys("*leaver*")) == 1, "what says that it was erased")
    assert online(settings, "leaver") is None


def test_what_a_restored_older_copy_lacks_is_published_again(
    settings: Settings, server: Server
) -> None:
    server.client.save()
    send(settings, [title_open(name) for name in PROFILES])
    until(lambda: sequences(settings) == [4] * len(PROFILES), "the newer features")
    server.kill()
    server.start()
    until(lambda: sequences(settings) == [4] * len(PROFILES), "the newer features again")


def test_rows_that_are_evicted_one_by_one_come_back(settings: Settings, server: Server) -> None:
    (row,) = server.client.keys("*member-7i*")
    server.client.delete(row)
    until(lambda: None not in sequences(settings), "the row again")


def test_a_profile_is_published_again_by_hand(settings: Settings, server: Server) -> None:
    published = online(settings, "member-3", "published_at")
    assert "1 profile" in command(settings, "republish", "--profile", "member-3")
    until(lambda: online(settings, "member-3", "published_at") > published, "a newer row")
    assert online(settings, "member-4", "published_at") <= published


def test_all_profiles_are_published_again_by_hand(settings: Settings) -> None:
    before = {name: online(settings, name, "published_at") for name in PROFILES}
    told = command(settings, "republish", "--per-s", "1000")
    assert f"asked for {len(PROFILES) + 1} profiles" in told
    until(
        lambda: all(online(settings, name, "published_at") > at for name, at in before.items()),
        "newer rows of all",
    )
    assert online(settings, "leaver") is None


def test_what_was_lost_while_no_worker_ran_is_there_once_one_has_started(
    isolated: Settings, kafka: str, redis: str, served_model: str, tmp_path: Path
) -> None:
    config = isolated.model_copy(update={"model_version": served_model})
    asyncio.run(create_topics(config))
    with worker(config, tmp_path / "worker.log", wait=True):
        send(config, [title_open(name) for name in PROFILES])
        until(lambda: sequences(config) == [1] * len(PROFILES), "all features")
    number = config.redis_url.get_secret_value().rpartition("=")[2]
    with redis_client.Redis(port=config.redis_port, db=int(number)) as client:
        client.flushdb()
    with worker(config, tmp_path / "worker.log", wait=True):
        until(lambda: sequences(config) == [1] * len(PROFILES), "all features again")
