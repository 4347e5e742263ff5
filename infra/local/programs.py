"""The programs of the local stack: how each is run, and how one sees that it is ready."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import uuid
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from infra.exceptions import SetupIncompleteError, StackError
from infra.local.remote import SOCKET
from infra.local.server_checks import (
    console_ready,
    kafka_ready,
    redis_ready,
    triton_serves,
    worker_ready,
)
from intentstream.paths import LOCAL
from stream.home import HOME

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream.settings import Settings

REDIS_DATABASES: Final = 1024
"""Databases of the local Redis: enough for every integration test to have its own."""

KAFKA_LIBS: Final = LOCAL / "kafka" / "libs"
TRITON_BACKENDS: Final = LOCAL / "triton" / "backends"

_LOG4J: Final = files("infra.local").joinpath("log4j2.properties")


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised program.

    Attributes:
        command: program and arguments.
        ports: names of the settings that hold the ports it listens on.
        is_ready: its health check; must not raise.
        prepare: writes what the program needs before its first start.
        environment: variables added to the caller's.
        restarts: whether the supervisor starts it again when it ends by itself.
        ready_s: longest time from start to ready on a machine with nothing else to do.
        stop_s: time between SIGTERM and SIGKILL.
    """

    command: tuple[str, ...]
    ports: tuple[str, ...]
    is_ready: Callable[[], bool]
    prepare: Callable[[], None] = lambda: None
    environment: dict[str, str] = field(default_factory=dict)
    restarts: bool = False
    ready_s: float = 60.0
    stop_s: int = 15


def programs(home: Path, settings: Settings) -> dict[str, Program]:
    """The programs by name, in the order in which they depend on each other."""
    return {
        "kafka": _kafka(home / "kafka", settings),
        "redis": _redis(home / "redis", settings),
        "triton": _triton(home / "triton" / "models", settings),
        "guard": _guard(home / SOCKET, settings),
        "worker": _worker(settings),
        "sink": _sink(settings),
        "console": _console(settings),
    }


def worker_environment(settings: Settings) -> dict[str, str]:
    """The `INTENT_*` variables that give a child process exactly these settings."""
    environment = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if isinstance(value, dict):
            value = json.dumps(value)
        if value is not None:
            environment[f"INTENT_{name.upper()}"] = str(value)
    return environment


def _kafka(home: Path, settings: Settings) -> Program:
    java = ("java", "-cp", f"{KAFKA_LIBS}/*", f"-Dlog4j2.configurationFile={_LOG4J}")
    # The name tells the supervisor, which compares commands, that a broker must start anew.
    properties = home / f"{settings.kafka_port}-{settings.kafka_controller_port}.properties"

    def prepare() -> None:
        if not any(KAFKA_LIBS.glob("kafka_*.jar")):
            raise SetupIncompleteError("Apache Kafka (.local/kafka/libs)")
        _require("java")
        home.mkdir(parents=True, exist_ok=True)
        properties.write_text(_kafka_properties(home / "data", settings))
        if not (home / "data" / "meta.properties").exists():
            # A leading letter: an id that begins with "-" would be read as an option.
            cluster = "I" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
            formatted = subprocess.run(  # noqa: S603 - our own command
                [
                    *java,
                    # A second of work: optimising its code would cost more than it saves.
                    "-XX:TieredStopAtLevel=1",
                    *("kafka.tools.StorageTool", "format", "-t", cluster, "-c", properties),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if formatted.returncode:
                raise StackError(
                    f"Kafka can't format {home / 'data'}: {formatted.stderr.strip()}; "
                    "give the stack a directory that it can write, or remove this one"
                )

    return Program(
        command=(
            *java,
            "-Xms512m",
            "-Xmx512m",
            # It shares a machine with everything else, seldom for long: optimising its code, and
            # collecting from several threads, would cost more than they save.
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "kafka.Kafka",
            str(properties),
        ),
        ports=("kafka_port", "kafka_controller_port"),
        is_ready=partial(kafka_ready, settings.kafka_port),
        prepare=prepare,
        restarts=True,
    )


def _kafka_properties(data: Path, settings: Settings) -> str:
    broker, controller = settings.kafka_port, settings.kafka_controller_port
    return "\n".join(
        (
            "process.roles=broker,controller",
            "node.id=1",
            # A static quorum: the data directory then holds no port and outlives a change of it.
            f"controller.quorum.voters=1@127.0.0.1:{controller}",
            f"listeners=BROKER://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners=BROKER://127.0.0.1:{broker}",
            "listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=BROKER",
            "controller.listener.names=CONTROLLER",
            f"log.dirs={data}",
            "auto.create.topics.enable=false",
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=4",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "share.coordinator.state.topic.replication.factor=1",
            "share.coordinator.state.topic.min.isr=1",
            "group.initial.rebalance.delay.ms=0",
            # A quarter of the default 128 MiB, which the cleaner takes from the small heap at once.
            "log.cleaner.dedupe.buffer.size=33554432",
            "",
        )
    )


def _redis(home: Path, settings: Settings) -> Program:
    port = str(settings.redis_port)

    def prepare() -> None:
        _require("redis-server")
        home.mkdir(parents=True, exist_ok=True)

    return Program(
        command=(
            *("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", str(home)),
            # Acknowledged events are not sent again, so their features must outlive the server.
            *("--save", "", "--appendonly", "yes", "--databases", str(REDIS_DATABASES)),
        ),
        ports=("redis_port",),
        is_ready=partial(redis_ready, settings.redis_port),
        prepare=prepare,
        restarts=True,
        ready_s=15.0,
        stop_s=5,
    )


def _triton(models: Path, settings: Settings) -> Program:
    site_packages = Path(sysconfig.get_path("purelib"))

    def prepare() -> None:
        if not (TRITON_BACKENDS / "python" / "triton_python_backend_stub").exists():
            raise SetupIncompleteError("Triton's python backend (.local/triton/backends)")
        models.mkdir(parents=True, exist_ok=True)

    return Program(
        command=(
            str(site_packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
            f"--model-repository={models}",
            f"--backend-directory={TRITON_BACKENDS}",
            "--model-control-mode=explicit",
            # The repository holds only what was loaded on purpose, so a restart serves it again.
            "--load-model=*",
            # The configuration is complete; working it out would start every model twice.
            "--disable-auto-complete-config",
            "--http-address=127.0.0.1",
            f"--http-port={settings.triton_http_port}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={settings.triton_grpc_port}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={settings.triton_metrics_port}",
            "--exit-timeout-secs=5",
        ),
        ports=("triton_http_port", "triton_grpc_port", "triton_metrics_port"),
        is_ready=partial(
            triton_serves,
            settings.triton_http_port,
            settings.triton_grpc_port,
            settings.triton_metrics_port,
        ),
        prepare=prepare,
        environment={
            # The embedded interpreter ignores PYTHONPATH. It finds its packages by the first
            # `python3` on PATH, and its standard library by the libpython that is loaded.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": (
                f"{site_packages / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
            ),
        },
        restarts=True,
        ready_s=120.0,
    )


def _guard(socket: Path, settings: Settings) -> Program:
    url = f"http://127.0.0.1:{settings.triton_http_port}"
    return Program(
        command=(sys.executable, "-m", "infra.local.guard", str(socket), url),
        ports=(),
        prepare=lambda: None,
        is_ready=lambda: True,  # it runs, and serves nobody
        restarts=True,
    )


def _worker(settings: Settings) -> Program:
    def prepare() -> None:
        (HOME / settings.data_dir).mkdir(parents=True, exist_ok=True)

    return Program(
        command=(str(Path(sys.executable).with_name("intentstream")), "worker"),
        ports=("metrics_port",),
        is_ready=partial(worker_ready, settings.metrics_port),
        prepare=prepare,
        environment=worker_environment(settings),
        restarts=True,
        ready_s=120.0,
        stop_s=30,
    )


def _sink(settings: Settings) -> Program:
    return Program(
        command=(str(Path(sys.executable).with_name("intentstream")), "sink"),
        ports=("sink_port",),
        is_ready=partial(worker_ready, settings.sink_port),
        environment=worker_environment(settings),
        restarts=True,
        stop_s=30,
    )


def _console(settings: Settings) -> Program:
    rules = str(files("infra").joinpath("prometheus", "rules.yml"))
    told = worker_environment(settings)
    return Program(
        command=(str(Path(sys.executable).with_name("intentstream")), "console"),
        ports=("console_port",),
        is_ready=partial(console_ready, settings.console_port),
        # Nobody but us is on this stack, so one may act as a member.
        environment={"INTENT_CONSOLE_ALERT_RULES": rules} | told | {"INTENT_CONSOLE_MAY_ACT": "1"},
        restarts=True,
        stop_s=10,
    )


def _require(executable: str) -> None:
    if shutil.which(executable) is None:
        raise SetupIncompleteError(f"the program {executable}")
