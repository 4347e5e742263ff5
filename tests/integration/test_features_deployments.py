"""The writer and reader on what Redis is deployed as: cluster, Sentinel, TLS, users, Valkey."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import redis as redis_client
from pydantic import SecretStr

from features.online.inspection import FencePosition, inspector_of
from features.online.writer import IntentWriter
from features.reading.reader import IntentReader
from features.registry.store import apply
from stream.exceptions import StoreRefusedError, StoreUnavailableError
from stream.ports import free_ports
from stream.settings import Settings
from tests.unit.features.samples import SAMPLE, changed, sample
from tests.workers import exit_code, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream.domain.feature_row import IntentRow

NODES = 3
SLOTS = 16_384


def start(folder: Path, *arguments: str, program: str = "redis-server") -> subprocess.Popen[bytes]:
    folder.mkdir()
    command = [program, *arguments, "--bind", "127.0.0.1", "--save", ""]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def wait_for(client: redis_client.Redis) -> None:
    def answers() -> bool:
        try:
            return bool(client.ping())
        except (redis_client.ConnectionError, redis_client.TimeoutError):
            return False

    until(answers, "a Redis that has started")


def stop(servers: list[subprocess.Popen[bytes]]) -> None:
    for server in servers:
        server.terminate()
    for server in servers:
        exit_code(server)


def write(settings: Settings, *rows: IntentRow) -> int:
    async def run() -> int:
        writer = IntentWriter(settings)
        await writer.start()
        try:
            return await writer.write(rows)
        finally:
            await writer.close()

    return asyncio.run(run())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a node of a cluster whose slots are spread over three nodes."""
    home = tmp_path_factory.mktemp("cluster")
    ports = free_ports(2 * NODES)
    servers = [
        start(
            home / str(port),
            *("--port", str(port), "--cluster-enabled", "yes"),
            *("--cluster-port", str(bus), "--cluster-node-timeout", "2000"),
        )
        for port, bus in zip(ports[:NODES], ports[NODES:], strict=True)
    ]
    try:
        clients = [redis_client.Redis(port=port, decode_responses=True) for port in ports[:NODES]]
        for number, client in enumerate(clients):
            wait_for(client)
            first, after = number * SLOTS // NODES, (number + 1) * SLOTS // NODES
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, after - 1)
            if number:
                bus = ports[NODES + number]
                clients[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[number], bus)

        def formed(node: redis_client.Redis) -> bool:
            return bool(node.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

        until(lambda: all(map(formed, clients)), "a cluster that has formed")
        yield f"127.0.0.1:{ports[0]}"
    finally:
        stop(servers)


@pytest.fixture
def on_cluster(cluster: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=cluster, redis_type="redis_cluster", feature_registry=tmp_path / "registry.db"
    )


def test_a_batch_is_written_to_every_node_of_a_cluster_and_read_back(on_cluster: Settings) -> None:
    batch = [sample(profile_id=f"p-{number}", sequence_no=number + 1) for number in range(100)]
    assert write(on_cluster, *batch) == 0
    read = IntentReader(on_cluster).read([row.profile_id for row in batch])
    assert [intent.row and intent.row.sequence_no for intent in read] == list(range(1, 101))


def test_an_older_row_is_refused_by_a_cluster(on_cluster: Settings) -> None:
    write(on_cluster, sample(profile_id="fenced"))
    older = SAMPLE.last_event_at_ms - 1
    assert write(on_cluster, sample(profile_id="fenced", last_event_at_ms=older)) == 1


def test_an_inspector_asks_every_node_of_a_cluster(on_cluster: Settings) -> None:
    write(on_cluster, *(sample(profile_id=f"seen-{number}") for number in range(10)))

    async def look() -> None:
        inspector = inspector_of(on_cluster)
        assert inspector is not None
        places = await inspector.places([f"seen-{number}" for number in range(11)])
        assert places == [FencePosition(SAMPLE.last_event_at_ms, SAMPLE.sequence_no)] * 10 + [None]
        assert len(await inspector.servers() or ()) == NODES
        await inspector.beat({0: 1, 1: 2})
        assert await inspector.beats([0, 1, 2]) == {0: 1, 1: 2, 2: None}
        await inspector.close()

    asyncio.run(look())


def test_a_cluster_that_lacks_a_slot_passes(on_cluster: Settings, cluster: str) -> None:
    write(on_cluster, SAMPLE)
    port = int(cluster.partition(":")[2])
    with redis_client.Redis(port=port, decode_responses=True) as node:

        def state() -> str:
            told: str = node.execute_command("CLUSTER INFO")["cluster_state"]
            return told

        node.execute_command("CLUSTER DELSLOTS", 0)
        try:
            until(lambda: state() == "fail", "a cluster that is down")
            with pytest.raises(StoreUnavailableError, match="slots that no node serves"):
                write(on_cluster, SAMPLE)
            with pytest.raises(StoreUnavailableError, match="slots that no node serves"):
                IntentReader(on_cluster).read([SAMPLE.profile_id])
        finally:
            node.execute_command("CLUSTER ADDSLOTS", 0)
        until(lambda: state() == "ok", "a whole cluster")
    assert write(on_cluster, SAMPLE) == 0


def test_a_cluster_that_is_taken_for_a_single_server_needs_an_operator(
    on_cluster: Settings,
) -> None:
    as_single = on_cluster.model_copy(update={"redis_type": "redis"})
    with pytest.raises(StoreRefusedError, match="set INTENT_REDIS_TYPE to redis_cluster"):
        write(as_single, *(sample(profile_id=f"p-{number}") for number in range(8)))


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[redis_client.Redis]:
    """A Sentinel that watches a master and its replica."""
    master, replica, port = free_ports(3)
    rules = tmp_path / "sentinel.conf"
    rules.write_text(f"sentinel monitor intents 127.0.0.1 {master} 1\n")
    servers = [
        start(tmp_path / "master", "--port", str(master), "--repl-diskless-sync-delay", "0"),
        start(tmp_path / "replica", "--port", str(replica), "--replicaof", f"127.0.0.1 {master}"),
    ]
    try:
        with redis_client.Redis(port=replica) as client:
            wait_for(client)
            until(lambda: client.info("replication")["master_link_status"] == "up", "a replica")
        # It comes last, because it asks a master for its replicas at once and then seldom.
        servers.append(start(tmp_path / "watch", str(rules), "--sentinel", "--port", str(port)))
        with redis_client.Redis(port=port, decode_responses=True) as client:
            wait_for(client)
            yield client
    finally:
        stop(servers)


def test_a_writer_and_a_reader_go_on_with_the_new_master_after_a_failover(
    sentinel: redis_client.Redis, tmp_path: Path
) -> None:
    settings = Settings(
        redis_type="redis_sentinel",
        redis_sentinel_master="intents",
        redis_url=f"127.0.0.1:{sentinel.connection_pool.connection_kwargs['port']}",
        feature_registry=tmp_path / "registry.db",
    )
    apply(settings)
    with pytest.raises(StoreUnavailableError, match="INTENT_REDIS_SENTINEL_MASTER"):
        write(settings.model_copy(update={"redis_sentinel_master": "others"}), SAMPLE)
    reader = IntentReader(settings)

    def read() -> int | None:
        (intent,) = reader.read([SAMPLE.profile_id])
        return intent.row.sequence_no if intent.row else None

    async def run() -> None:
        writer = IntentWriter(settings)
        await writer.start()
        await writer.write([SAMPLE])
        assert read() == SAMPLE.sequence_no
        fail_over(sentinel)
        await until_written(writer, sample(sequence_no=SAMPLE.sequence_no + 1))
        await writer.close()

    asyncio.run(run())
    until(lambda: read() == SAMPLE.sequence_no + 1, "the new master's row")


def fail_over(sentinel: redis_client.Redis) -> None:
    """Make the replica the master."""

    def master() -> list[str]:
        address: list[str] = sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "intents")
        return address

    def started() -> bool:
        try:
            return bool(sentinel.execute_command("SENTINEL FAILOVER", "intents"))
        except redis_client.ResponseError:  # it does not know of the replica yet
            return False

    before = master()
    until(started, "a failover")
    until(lambda: master() != before, "a new master")


async def until_written(writer: IntentWriter, row: IntentRow) -> None:
    while True:
        try:
            await writer.write([row])
        except StoreUnavailableError:
            await asyncio.sleep(0.1)
        else:
            return


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Connection string of a server that takes nothing but TLS from the user `writer`."""
    home = tmp_path_factory.mktemp("tls")
    key, certificate = home / "key.pem", home / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    (port,) = free_ports(1)
    server = start(
        home / "server",
        *("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-key-file", str(key), "--tls-cert-file", str(certificate)),
        *("--tls-ca-cert-file", str(certificate)),
    )
    try:
        client = redis_client.Redis(port=port, ssl=True, ssl_ca_certs=str(certificate))
        wait_for(client)
        rights = ["+hmget", "+hset", "+expire", "+persist", "+evalsha", "+script|load"]
        client.acl_setuser("writer", enabled=True, passwords=["+0123"], keys=["*"], commands=rights)
        client.acl_setuser("default", enabled=False)
        client.close()
        yield f"127.0.0.1:{port},ssl=true,ssl_ca_certs={certificate},username=writer"
    finally:
        stop([server])


@pytest.fixture
def over_tls(tls: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=f"{tls},password=0123", feature_registry=tmp_path / "registry.db")


def test_a_user_with_few_rights_writes_and_reads_over_tls(over_tls: Settings) -> None:
    assert write(over_tls, SAMPLE) == 0
    assert IntentReader(over_tls).read([SAMPLE.profile_id])[0].row is not None


def test_a_user_with_few_rights_watches_its_rows_without_knowing_the_server(
    over_tls: Settings,
) -> None:
    async def look() -> None:
        inspector = inspector_of(over_tls)
        assert inspector is not None
        await inspector.beat({3: 7})
        assert await inspector.beats([3, 4]) == {3: 7, 4: None}
        assert await inspector.servers() is None
        await inspector.close()

    asyncio.run(look())


def test_a_wrong_password_is_for_an_operator_and_is_not_repeated(
    over_tls: Settings, tls: str
) -> None:
    wrong = SecretStr(f"{tls},password=open-sesame")
    with pytest.raises(StoreRefusedError) as failure:
        write(over_tls.model_copy(update={"redis_url": wrong}), SAMPLE)
    assert "open-sesame" not in str(failure.value)


@pytest.fixture
def on_valkey(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a running Valkey, where this machine has one."""
    program = shutil.which("valkey-server")
    if program is None:
        pytest.skip("needs the program valkey-server")
    (port,) = free_ports(1)
    server = start(tmp_path / "valkey", "--port", str(port), program=program)
    try:
        with redis_client.Redis(port=port) as client:
            wait_for(client)
            assert "valkey_version" in client.info("server")
        yield Settings(redis_url=f"127.0.0.1:{port}", feature_registry=tmp_path / "registry.db")
    finally:
        stop([server])


def test_valkey_fences_and_serves_as_redis_does(on_valkey: Settings) -> None:
    batch = [sample(profile_id=f"p-{number}", sequence_no=number + 1) for number in range(100)]
    assert write(on_valkey, *batch) == 0
    older = [changed(row, last_event_at_ms=row.last_event_at_ms - 1, genre="war") for row in batch]
    assert write(on_valkey, *older) == 100
    read = IntentReader(on_valkey).read([row.profile_id for row in batch])
    assert [intent.row and intent.row.labels["genre"] for intent in read] == [
        SAMPLE.labels["genre"]
    ] * 100
