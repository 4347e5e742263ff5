"""What a real Redis answers when something is wrong, and what writer and reader make of it."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis as redis_client
from pydantic import SecretStr

from features.reading.reader import IntentReader
from features.registry.store import apply
from stream.exceptions import StoreRefusedError, StoreUnavailableError
from stream.ports import free_ports
from stream.settings import Settings
from tests.integration.test_features_deployments import start, stop, wait_for, write
from tests.unit.features.samples import SAMPLE
from tests.workers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Provoke = Callable[[redis_client.Redis, Path], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[redis_client.Redis]:
    """A server whose answers are the test's business."""
    (port,) = free_ports(1)
    process = start(
        home / "server",
        *("--port", str(port), "--enable-protected-configs", "yes"),
        *("--enable-debug-command", "yes", "--busy-reply-threshold", "10"),
    )
    try:
        with redis_client.Redis(port=port) as client:
            wait_for(client)
            yield client
    finally:
        stop([process])


@pytest.fixture
def settings(server: redis_client.Redis, tmp_path: Path) -> Settings:
    port = server.connection_pool.connection_kwargs["port"]
    settings = Settings(redis_url=f"127.0.0.1:{port}", feature_registry=tmp_path / "registry.db")
    assert write(settings, SAMPLE) == 0
    return settings


@contextmanager
def configured(server: redis_client.Redis, **values: Any) -> Iterator[None]:
    """The server with other values of its configuration."""
    before = {name: server.config_get(name)[name] for name in values}
    for name, value in values.items():
        server.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            server.config_set(name, value)


@contextmanager
def without_replicas(server: redis_client.Redis, _: Path) -> Iterator[None]:
    with configured(server, **{"min-replicas-to-write": 1}):
        yield


@contextmanager
def without_memory(server: redis_client.Redis, _: Path) -> Iterator[None]:
    with configured(server, maxmemory=1):
        yield


@contextmanager
def with_a_snapshot_that_failed(server: redis_client.Redis, home: Path) -> Iterator[None]:
    def saved() -> str:
        server.bgsave()
        until(lambda: not server.info("persistence")["rdb_bgsave_in_progress"], "an end")
        status: str = server.info("persistence")["rdb_last_bgsave_status"]
        return status

    gone = home / "gone"
    gone.mkdir()
    with configured(server, dir=str(gone), save="3600 1"):
        gone.rmdir()
        assert saved() == "err"
        yield
    assert saved() == "ok"


@contextmanager
def as_a_replica(server: redis_client.Redis, _: Path) -> Iterator[None]:
    server.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        server.replicaof("NO", "ONE")


@contextmanager
def as_a_replica_that_lost_its_master(server: redis_client.Redis, home: Path) -> Iterator[None]:
    with configured(server, **{"replica-serve-stale-data": "no"}), as_a_replica(server, home):
        yield


@contextmanager
def under_a_script(server: redis_client.Redis, _: Path) -> Iterator[None]:
    def loop() -> None:
        with (
            redis_client.Redis(**server.connection_pool.connection_kwargs) as other,
            pytest.raises(redis_client.ResponseError, match="killed by user"),
        ):
            other.eval("while true do end", 0)

    def is_busy() -> bool:
        try:
            return not server.ping()
        except redis_client.ResponseError as error:
            return "BUSY" in str(error)

    script = threading.Thread(target=loop)
    script.start()
    try:
        until(is_busy, "a busy server")
        yield
    finally:
        server.script_kill()
        script.join()


@contextmanager
def while_it_reads_its_data(server: redis_client.Redis, _: Path) -> Iterator[None]:
    def reload() -> None:
        with redis_client.Redis(**server.connection_pool.connection_kwargs) as other:
            other.execute_command("DEBUG", "RELOAD")

    def is_loading() -> bool:
        try:
            return not server.ping()
        except redis_client.BusyLoadingError:
            return True

    server.mset({f"other-{number}": os.urandom(1024) for number in range(3000)})
    slow = {"key-load-delay": 20_000, "loading-process-events-interval-bytes": 1024}
    reloading = threading.Thread(target=reload)
    with configured(server, **slow):
        reloading.start()
        until(is_loading, "a server that loads")
        yield
    reloading.join()
    server.delete(*(f"other-{number}" for number in range(3000)))


@pytest.mark.parametrize(
    ("provoke", "told", "is_read"),
    [
        (without_replicas, "min-replicas-to-write", True),
        (without_memory, "maxmemory", True),
        (with_a_snapshot_that_failed, "space on its disk", True),
        (as_a_replica, "INTENT_REDIS_URL has to name the master", True),
        (as_a_replica_that_lost_its_master, "lost its master", False),
        (under_a_script, "SCRIPT KILL", False),
        (while_it_reads_its_data, "reading its data", False),
    ],
)
def test_an_answer_that_passes_says_so_and_the_same_write_succeeds_after_it(
    settings: Settings,
    server: redis_client.Redis,
    home: Path,
    provoke: Provoke,
    told: str,
    is_read: bool,
) -> None:
    apply(settings)
    reader = IntentReader(settings)
    with provoke(server, home):
        with pytest.raises(StoreUnavailableError, match=told) as failure:
            write(settings, SAMPLE)
        if is_read:
            assert reader.read([SAMPLE.profile_id])[0].row is not None
        else:
            with pytest.raises(StoreUnavailableError, match=told):
                reader.read([SAMPLE.profile_id])
    assert SAMPLE.profile_id not in str(failure.value)
    assert write(settings, SAMPLE) == 0
    assert reader.read([SAMPLE.profile_id])[0].row is not None


def test_a_password_that_is_missing_needs_an_operator(
    settings: Settings, server: redis_client.Redis
) -> None:
    server.config_set("requirepass", "open-sesame")
    try:
        with pytest.raises(StoreRefusedError, match="the password"):
            write(settings, SAMPLE)
        with pytest.raises(StoreRefusedError, match="the password"):
            IntentReader(settings).read([SAMPLE.profile_id])
    finally:
        server.config_set("requirepass", "")


def test_a_database_that_the_server_has_not_needs_an_operator(settings: Settings) -> None:
    url = SecretStr(f"{settings.redis_url.get_secret_value()},db=99")
    with pytest.raises(StoreRefusedError, match="check `db` in INTENT_REDIS_URL"):
        write(settings.model_copy(update={"redis_url": url}), SAMPLE)


def test_a_single_server_that_is_taken_for_a_cluster_needs_an_operator(settings: Settings) -> None:
    as_cluster = settings.model_copy(update={"redis_type": "redis_cluster"})
    with pytest.raises(StoreRefusedError, match="set INTENT_REDIS_TYPE to redis"):
        write(as_cluster, SAMPLE)
    with pytest.raises(StoreRefusedError, match="set INTENT_REDIS_TYPE to redis"):
        IntentReader(as_cluster).read([SAMPLE.profile_id])
