from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from redis import Redis
from supervisor.options import ServerOptions
from tritonclient.grpc import InferenceServerClient, InferInput

from infra.exceptions import ProgramFailedError, StackError
from infra.local import commands
from infra.local.programs import worker_environment
from infra.local.server_checks import kafka_ready, redis_ready, triton_ready, worker_ready
from infra.local.stack import Stack
from stream.domain.topics import SESSIONS_CHANGELOG, TOPICS
from stream.exceptions import (
    ModelVersionError,
    PortTakenError,
    TopicCreationError,
    TopicMismatchError,
)
from stream.kafka.admin import create_topics
from stream.kafka.lag import LagReader
from stream.ports import free_ports
from tests.conftest import free_settings
from tests.unit.infra.test_compose import asked
from tests.workers import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream.kafka.lag import PartitionLag
    from stream.settings import Settings

TINY_CONFIG = """
name: "tiny"
backend: "python"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""

TINY_MODEL = """
import torch
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.version = int(args["model_version"])

    def execute(self, requests):
        responses = []
        for request in requests:
            x = torch.from_dlpack(pb_utils.get_input_tensor_by_name(request, "x").to_dlpack())
            y = pb_utils.Tensor.from_dlpack("y", x + self.version)
            responses.append(pb_utils.InferenceResponse([y]))
        return responses
"""


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository whose model adds its own version to its input; version 3 is broken."""
    models = tmp_path_factory.mktemp("tiny-models")
    for version, code in (("1", TINY_MODEL), ("2", TINY_MODEL), ("3", "raise ValueError('no')")):
        (models / "tiny" / version).mkdir(parents=True)
        (models / "tiny" / version / "model.py").write_text(code)
    (models / "tiny" / "config.pbtxt").write_text(TINY_CONFIG)
    return models


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Stack]:
    """A stack of its own with a running Triton for the tiny model."""
    home = tmp_path_factory.mktemp("tiny-stack")
    settings = free_settings(home).model_copy(update={"model_name": "tiny"})
    with Stack(home, settings, tiny_models) as stack:
        stack.start("triton")
        yield stack


def infer(stack: Stack) -> float:
    x = InferInput("x", [1, 1], "FP32")
    with InferenceServerClient(stack.settings.triton_url) as client:
        x.set_data_from_numpy(np.zeros((1, 1), np.float32))
        return float(client.infer("tiny", [x]).as_numpy("y").item())


def test_each_server_is_ready_by_its_own_protocol_once_started(
    stack: Stack, kafka: str, redis: str, triton: str
) -> None:
    settings = stack.settings
    assert kafka_ready(settings.kafka_port)
    assert redis_ready(settings.redis_port)
    # Triton isn't ready while it unloads the version that another test replaced.
    until(
        lambda: triton_ready(settings.triton_grpc_port, settings.triton_metrics_port),
        "a ready Triton",
    )


def test_no_server_listens_beyond_loopback(
    stack: Stack, kafka: str, redis: str, triton: str
) -> None:
    for program in ("kafka", "redis", "triton"):
        listeners = [
            connection.laddr.ip
            for connection in psutil.Process(stack.pid(program)).net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listeners
        assert {address.removeprefix("::ffff:") for address in listeners} == {"127.0.0.1"}


def test_nothing_is_ready_where_nothing_listens() -> None:
    (port,) = free_ports(1)
    assert not kafka_ready(port)
    assert not redis_ready(port)
    assert not triton_ready(port, port)
    assert not worker_ready(port)


def test_a_server_that_speaks_another_protocol_is_not_ready(redis: str) -> None:
    port = int(redis.rpartition(":")[2])
    assert not kafka_ready(port)
    assert not triton_ready(port, port)
    assert not worker_ready(port)


def test_a_loaded_version_replaces_the_one_before(tiny: Stack) -> None:
    tiny.load_model("1")
    first = infer(tiny)
    tiny.load_model("2")
    assert (first, infer(tiny)) == (1.0, 2.0)


def test_a_killed_triton_comes_back_with_the_version_it_served(tiny: Stack) -> None:
    tiny.load_model("1")
    killed = tiny.pid("triton")
    os.kill(killed, signal.SIGKILL)
    until(lambda: tiny.pid("triton") not in (0, killed), "a new Triton")
    tiny.wait("triton")
    assert infer(tiny) == 1.0


def test_a_killed_kafka_or_redis_comes_back_with_what_it_held_and_the_status_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = free_settings(tmp_path)
    with Stack(tmp_path, settings) as stack, Redis(port=settings.redis_port) as client:
        stack.start("kafka", "redis")
        asyncio.run(create_topics(settings))
        client.set("key", "value")
        killed = {name: stack.pid(name) for name in ("kafka", "redis")}
        for pid in killed.values():
            os.kill(pid, signal.SIGKILL)
        for name, pid in killed.items():
            until(
                lambda name=name, pid=pid: stack.pid(name) not in (0, pid), f"{name} started anew"
            )
            stack.wait(name)
        assert client.get("key") == b"value"
        partitions, _ = asyncio.run(describe(settings.kafka_bootstrap, SESSIONS_CHANGELOG))
        assert partitions == settings.topic_partitions
        stack.stop_program("redis")
        monkeypatch.setattr(commands, "local_stack", lambda: stack)
        monkeypatch.setattr(commands, "LOCAL", tmp_path)
        commands.status()
    told = capsys.readouterr().out
    assert "kafka ended at" in told
    assert "and was started again" in told
    assert "redis ended at" in told
    assert "`make up` starts it" in told


def test_an_absent_version_is_refused_by_name(tiny: Stack) -> None:
    with pytest.raises(ModelVersionError, match=r"version 7 of tiny is neither in .*train"):
        tiny.load_model("7")


def test_a_version_that_does_not_load_names_its_error(tiny: Stack) -> None:
    with pytest.raises(ModelVersionError, match=r"can't load version 3 of tiny: .*ValueError: no"):
        tiny.load_model("3")


def test_a_version_that_does_not_load_leaves_the_one_before(tiny: Stack) -> None:
    tiny.load_model("2")
    with pytest.raises(ModelVersionError):
        tiny.load_model("3")
    before_restart = infer(tiny)
    tiny.restart("triton")
    assert (before_restart, infer(tiny)) == (2.0, 2.0)


def test_a_restart_gives_a_new_process(tiny: Stack) -> None:
    before = tiny.pid("triton")
    tiny.restart("triton")
    assert tiny.pid("triton") not in (0, before)


def test_stop_leaves_no_process(tmp_path: Path) -> None:
    stack = Stack(tmp_path, free_settings(tmp_path))
    stack.start("kafka", "redis", "triton")
    family = processes_of(tmp_path)
    stack.stop()
    assert len(family) >= 4
    assert not any(process.is_running() for process in family)
    assert not stack.running()


def test_stopping_a_stopped_stack_does_nothing(tmp_path: Path) -> None:
    Stack(tmp_path, free_settings(tmp_path)).stop()


def test_an_exception_stops_the_stack(tmp_path: Path) -> None:
    def fail_with_a_running_stack() -> None:
        with Stack(tmp_path, free_settings(tmp_path)) as stack:
            stack.start("redis")
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail_with_a_running_stack()
    assert not processes_of(tmp_path)


CALLER = """
import sys
import time
from pathlib import Path
from intentstream.signals import unwind_on_sigterm
from infra.local.programs import worker_environment
from infra.local.stack import Stack
from stream.settings import Settings

home, redis_port = Path(sys.argv[1]), int(sys.argv[2])
with unwind_on_sigterm(), Stack(home, Settings(redis_port=redis_port)) as stack:
    stack.start("redis")
    print("started", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_caller_that_is_ended_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    (port,) = free_ports(1)
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"started\n"
        family = processes_of(tmp_path)
        caller.send_signal(number)
        caller.wait()
    assert len(family) == 2
    until(lambda: not any(process.is_running() for process in family), "the end of the stack")


def test_a_killed_supervisor_takes_its_programs_with_it(tmp_path: Path) -> None:
    with Stack(tmp_path, free_settings(tmp_path)) as stack:
        stack.start("kafka", "redis")
        family = processes_of(tmp_path)
        family[0].kill()
        until(
            lambda: not any(process.is_running() for process in family[1:]),
            "the end of the programs",
        )
    assert len(family) == 3


def test_a_group_of_a_new_cluster_has_no_lag(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)

    async def read() -> list[PartitionLag]:
        async with LagReader(settings) as reader:
            return await reader.read("nobody-yet")

    with Stack(tmp_path, settings) as stack:
        stack.start("kafka")
        assert asyncio.run(read()) == []


def test_a_stack_outlives_a_caller_that_only_starts_it(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    Stack(tmp_path, settings).start("redis")
    try:
        with Stack(tmp_path, settings) as again:
            again.start("redis")
            pid = again.pid("redis")
        assert Stack(tmp_path, settings).pid("redis") == pid
    finally:
        Stack(tmp_path, settings).stop()


def test_programs_outlive_the_folder_that_feast_made_for_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "gone"))
    with Stack(tmp_path, free_settings(tmp_path)) as stack:
        stack.start("redis")
        inherited = psutil.Process(stack.pid("redis")).environ()
    assert not [name for name in inherited if name.startswith("PROMETHEUS")]


def test_changed_settings_restart_what_they_concern_and_nothing_else(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    with Stack(tmp_path, settings) as stack:
        stack.start("redis", "triton")
        triton = stack.pid("triton")
        (port,) = free_ports(1)
        Stack(tmp_path, settings.model_copy(update={"redis_port": port})).start("redis", "triton")
        assert redis_ready(port)
        assert not redis_ready(settings.redis_port)
        assert stack.pid("triton") == triton


def test_a_program_goes_on_while_others_are_started_with_other_settings(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    with Stack(tmp_path, settings) as stack:
        stack.start("redis")
        redis = stack.pid("redis")
        (port,) = free_ports(1)
        Stack(tmp_path, settings.model_copy(update={"redis_port": port})).start("guard")
        beside = stack.pid("redis")
        stack.start("redis", "guard")
        assert (beside, stack.pid("redis")) == (redis, redis)


def test_a_taken_port_is_named_with_the_variable_that_moves_it(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    with (
        socket.create_server(("127.0.0.1", settings.redis_port)),
        Stack(tmp_path, settings) as stack,
        pytest.raises(PortTakenError, match=f"{settings.redis_port}.*INTENT_REDIS_PORT") as caught,
    ):
        stack.start("redis")
    assert (caught.value.port, caught.value.variable) == (settings.redis_port, "INTENT_REDIS_PORT")


def test_a_start_that_fails_leaves_no_process(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    with (
        socket.create_server(("127.0.0.1", settings.redis_port)),
        pytest.raises(PortTakenError),
    ):
        Stack(tmp_path, settings).start("kafka", "redis")
    assert not processes_of(tmp_path)


def test_a_program_that_ends_at_its_start_shows_its_log(tmp_path: Path) -> None:
    damaged = tmp_path / "kafka" / "data" / "meta.properties"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("version=unknown\n")
    with (
        Stack(tmp_path, free_settings(tmp_path)) as stack,
        pytest.raises(ProgramFailedError, match=r"(?s)kafka ends .*kafka\.log.*meta\.properties"),
    ):
        stack.start("kafka")


def test_a_directory_that_kafka_can_not_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "data").write_text("in the way")
    with pytest.raises(StackError, match=r"Kafka can't format .*/kafka/data"):
        Stack(tmp_path, free_settings(tmp_path)).start("kafka")


def test_the_supervisor_reads_every_setting_of_the_worker_as_it_was_written(tmp_path: Path) -> None:
    settings = free_settings(tmp_path).model_copy(update={"consumer_group": "50% of 'it', a=b; c"})
    with Stack(tmp_path, settings) as stack:
        stack.start("redis")
    options = ServerOptions()
    options.realize(["-c", str(tmp_path / "supervisord.conf")])
    (worker,) = (group for group in options.process_group_configs if group.name == "worker")
    assert worker.process_configs[0].environment == worker_environment(settings)


def test_topics_are_created_with_their_configuration(kafka: str, isolated: Settings) -> None:
    asyncio.run(create_topics(isolated))
    changelog = isolated.topic(SESSIONS_CHANGELOG)
    partitions, config = asyncio.run(describe(kafka, changelog))
    assert partitions == isolated.topic_partitions
    assert config["cleanup.policy"] == "compact"
    assert config["min.compaction.lag.ms"] == "3600000"


def test_creating_topics_again_changes_nothing(kafka: str, isolated: Settings) -> None:
    asyncio.run(create_topics(isolated))
    before = asyncio.run(describe(kafka, isolated.topic(TOPICS[0].name)))
    asyncio.run(create_topics(isolated))
    assert asyncio.run(describe(kafka, isolated.topic(TOPICS[0].name))) == before


def test_a_topic_with_other_partitions_is_an_error(kafka: str, isolated: Settings) -> None:
    asyncio.run(create_topics(isolated))
    wider = isolated.model_copy(update={"topic_partitions": isolated.topic_partitions + 1})
    with pytest.raises(TopicMismatchError, match="INTENT_TOPIC_PARTITIONS"):
        asyncio.run(create_topics(wider))


def test_a_topic_that_the_broker_refuses_is_an_error(kafka: str, isolated: Settings) -> None:
    replicated = isolated.model_copy(update={"topic_replicas": 3})
    with pytest.raises(TopicCreationError, match="InvalidReplicationFactor"):
        asyncio.run(create_topics(replicated))


def test_a_real_broker_is_healthy_by_compose_s_check(kafka: str) -> None:
    assert asked("kafka", kafka.replace(":", "/"))


async def describe(bootstrap: str, topic: str) -> tuple[int, dict[str, str]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([topic])
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    ((_, _, _, _, entries),) = answer.resources
    return len(described["partitions"]), {entry[0]: entry[1] for entry in entries}


def processes_of(home: Path) -> list[psutil.Process]:
    """The supervisor of `home` and all that descends from it."""
    return [
        member
        for process in psutil.process_iter(["cmdline"])
        if str(home / "supervisord.conf") in (process.info["cmdline"] or ())
        for member in (process, *process.children(recursive=True))
    ]
