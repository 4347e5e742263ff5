from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest
import yaml

from infra import bootstrap
from stream.settings import BridgeSettings, Settings
from tests.checkout import REPOSITORY

BASE: Final = REPOSITORY / "docker-compose.yml"
GPU: Final = REPOSITORY / "docker-compose.gpu.yml"
ONE_SHOT: Final = "topics"


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


SERVICES: Final[dict[str, Any]] = load(BASE)["services"]


def binds() -> list[dict[str, Any]]:
    """Mounts of what is on this machine and not of the repository."""
    volumes = (volume for one in SERVICES.values() for volume in one.get("volumes", ()))
    return [volume for volume in volumes if isinstance(volume, dict)]


def violations(*files: Path) -> str:
    """What the compose specification's JSON schema says against the files; empty when nothing."""
    checker = Path(sys.executable).with_name("check-jsonschema")
    result = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout + result.stderr if result.returncode else ""


def has_compose() -> bool:
    docker = shutil.which("docker")
    return docker is not None and (
        subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode
        == 0
    )


def test_the_compose_files_satisfy_the_specification() -> None:
    assert violations(BASE, GPU) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("healthcheck:", "healtcheck:"),
        ("condition: service_healthy", "condition: service_health"),
        ("restart: unless-stopped", "restart: [unless-stopped]"),
    ],
)
def test_a_broken_compose_file_violates_the_specification(
    tmp_path: Path, right: str, wrong: str
) -> None:
    text = BASE.read_text()
    assert right in text
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(text.replace(right, wrong, 1))
    assert "Schema validation errors" in violations(broken)


@pytest.mark.skipif(not has_compose(), reason="needs a Docker client with compose")
def test_compose_accepts_the_files_together() -> None:
    files = ("--file", str(BASE), "--file", str(GPU))
    subprocess.run(["docker", "compose", *files, "config", "--quiet"], check=True)


def test_every_port_is_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_lasting_service_has_a_health_check_and_starts_again() -> None:
    lasting = {name: service for name, service in SERVICES.items() if name != ONE_SHOT}
    assert all("healthcheck" in service for service in lasting.values())
    assert {service["restart"] for service in lasting.values()} == {"unless-stopped"}


def asked(service: str, address: str) -> bool:
    """Whether a service is healthy by its own check, which is made to ask at another address."""
    *shell, script = SERVICES[service]["healthcheck"]["test"][1:]
    assert shell == ["bash", "-c"]
    script = re.sub("/dev/tcp/[^/]+/[0-9]+", f"/dev/tcp/{address}", script).replace("$$", "$")
    return subprocess.run([*shell, script], capture_output=True, check=False).returncode == 0


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address, as host/port, of a server that takes one request and gives this answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield f"127.0.0.1/{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("service", ["worker", "sink", "bridge"])
@pytest.mark.parametrize(
    ("status", "healthy"), [("200 OK", True), ("503 Service Unavailable", False)]
)
def test_a_service_is_healthy_when_it_says_that_it_is_ready(
    service: str, status: str, healthy: bool
) -> None:
    with answering(f"HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as address:
        assert asked(service, address) is healthy


@pytest.mark.parametrize("service", ["kafka", "worker", "sink", "bridge"])
def test_who_does_not_answer_or_is_not_there_is_not_healthy(service: str) -> None:
    with answering(b"") as address:
        assert not asked(service, address)
    assert not asked(service, "127.0.0.1/1")


def test_workers_and_sinks_are_named_by_their_container_s_host(tmp_path: Path) -> None:
    (tmp_path / "intentstream").write_text('#!/bin/sh\necho "$INTENT_INSTANCE_ID" "$@"\n')
    (tmp_path / "intentstream").chmod(0o700)
    for name in ("worker", "sink"):
        command = [*SERVICES[name]["entrypoint"], *SERVICES[name]["command"]]
        told = subprocess.run(
            [part.replace("$$", "$") for part in command],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOSTNAME": "0c0ffee"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout == f"0c0ffee {name}\n"


def test_dependencies_name_services_and_wait_for_what_those_can_become() -> None:
    for service in SERVICES.values():
        for name, dependency in service.get("depends_on", {}).items():
            reached = "service_completed_successfully" if name == ONE_SHOT else "service_healthy"
            assert name in SERVICES
            assert dependency["condition"] == reached


def test_the_worker_is_given_settings_that_exist() -> None:
    variables = {
        variable.removeprefix("INTENT_").lower()
        for name in ("worker", "bridge", ONE_SHOT)
        for variable in SERVICES[name]["environment"]
    }
    assert variables <= Settings.model_fields.keys()


def test_the_bridge_is_started_only_for_whoever_asks_for_it() -> None:
    assert SERVICES["bridge"]["profiles"] == ["bridge"]
    assert not [name for name, one in SERVICES.items() if "profiles" in one and name != "bridge"]


def test_every_setting_of_the_bridge_can_be_given_from_outside() -> None:
    given = {*SERVICES["bridge"]["environment"]}
    wanted = {f"INTENT_{name.upper()}" for name in BridgeSettings.model_fields}
    in_the_container = {"INTENT_BRIDGE_PORT", "INTENT_SCHEMA_REGISTRY_CAFILE"}
    assert wanted - given == in_the_container


def test_triton_has_shared_memory_and_a_gpu_only_by_the_override() -> None:
    assert SERVICES["triton"]["shm_size"] == "1gb"
    assert "deploy" not in SERVICES["triton"]
    override = load(GPU)["services"]["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert override == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


def test_the_container_and_the_local_stack_run_the_same_kafka() -> None:
    pom = (REPOSITORY / "infra" / "pom.xml").read_text()
    version = re.search("<kafka.version>(.+)</kafka.version>", pom)
    assert version is not None
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version[1]}"


def test_every_file_that_compose_mounts_or_builds_from_exists() -> None:
    files = [
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if isinstance(volume, str) and volume.startswith("./")
    ]
    files += [service["build"]["dockerfile"] for service in SERVICES.values() if "build" in service]
    assert files
    assert all((REPOSITORY / file).exists() for file in files)


def test_what_compose_mounts_of_this_machine_is_read_only_and_never_made_by_the_engine() -> None:
    assert binds()
    for bind in binds():
        assert (bind["type"], bind["read_only"]) == ("bind", True)
        assert bind["bind"] == {"create_host_path": False}
    short = [v for one in SERVICES.values() for v in one.get("volumes", ()) if isinstance(v, str)]
    assert not [volume for volume in short if volume.startswith(("$", "/", "~"))]


def test_triton_reads_what_is_published_on_this_machine_where_set_up_made_the_folder() -> None:
    (models,) = SERVICES["triton"]["volumes"]
    published = Settings.model_fields["triton_models"].default
    assert models["source"] == f"${{INTENT_TRITON_MODELS:-./{published}}}"
    assert REPOSITORY / published == bootstrap.MODELS


def test_the_worker_reads_the_live_version_s_titles_where_triton_s_models_are_mounted() -> None:
    (models,) = SERVICES["triton"]["volumes"]
    assert models in SERVICES["worker"]["volumes"]
    assert SERVICES["worker"]["environment"]["INTENT_TRITON_MODELS"] == models["target"]


def test_the_worker_looks_for_a_catalogue_where_it_is_mounted_and_only_if_one_is_named() -> None:
    (catalogue,) = (bind for bind in binds() if "INTENT_CATALOGUE" in bind["source"])
    assert catalogue in SERVICES["worker"]["volumes"]
    assert catalogue["source"] == "${INTENT_CATALOGUE:-/dev/null}"
    told = SERVICES["worker"]["environment"]["INTENT_CATALOGUE"]
    assert told == f"${{INTENT_CATALOGUE:+{catalogue['target']}}}"


def test_prometheus_scrapes_services_at_ports_that_they_listen_on() -> None:
    jobs = load(REPOSITORY / "infra" / "prometheus" / "prometheus.yml")["scrape_configs"]
    targets = [
        target
        for job in jobs
        for target in (
            *(target for one in job.get("static_configs", ()) for target in one["targets"]),
            *(
                f"{name}:{one['port']}"
                for one in job.get("dns_sd_configs", ())
                for name in one["names"]
            ),
        )
    ]
    named = {target.partition(":")[0] for target in targets}
    assert named == {"worker", "sink", "bridge", "triton"}
    for target in targets:
        name, _, port = target.partition(":")
        assert any(published.endswith(f":{port}") for published in SERVICES[name]["ports"])
