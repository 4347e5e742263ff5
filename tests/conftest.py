"""Real servers for the tests that ask for them, on free ports, started once for the whole run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr

from infra.local.stack import Stack, on_loopback
from stream.ports import free_ports
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# An example takes as long as the machine has other things to do.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

_PORTS: Final = (
    "kafka_port",
    "kafka_controller_port",
    "redis_port",
    "triton_http_port",
    "triton_grpc_port",
    "triton_metrics_port",
    "metrics_port",
    "sink_port",
    "console_port",
)
_numbers = itertools.count(1)
_TOLD_CHARACTERS: Final = 8_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the ends of the logs that servers and workers wrote to while a test failed."""
    report = yield
    factory: pytest.TempPathFactory | None = getattr(item, "funcargs", {}).get("tmp_path_factory")
    if report.failed and factory is not None:
        for log in sorted(factory.getbasetemp().rglob("*log")):
            is_segment = log.stem.isdigit()  # of a topic of Kafka's
            if log.is_file() and not is_segment and log.stat().st_mtime >= call.start:
                told = log.read_text(errors="replace")[-_TOLD_CHARACTERS:]
                report.sections.append((f"the end of {log}", told))
    return report


def free_settings(home: Path) -> Settings:
    """Settings of a stack of its own: free ports, and every file under `home`."""
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    settings = Settings(
        data_dir=home / "worker",
        feature_registry=home / "registry.db",
        triton_models=home / "triton" / "models",
        # A request that a busy machine holds up has not failed.
        inference_deadline_s=15.0,
        session_timeout_s=20,
    )
    return on_loopback(settings.model_copy(update=ports))


@pytest.fixture(scope="session")
def model_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty model repository, for tests to export their versions into."""
    return tmp_path_factory.mktemp("model_repo")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, model_repository: Path) -> Iterator[Stack]:
    """The servers of this run; those run that a test asked for by `kafka`, `redis` or `triton`."""
    home = tmp_path_factory.mktemp("stack")
    with Stack(home, free_settings(home), model_repository) as servers:
        yield servers


@pytest.fixture(scope="session")
def kafka(stack: Stack) -> str:
    """Bootstrap servers of a running Kafka; its topics are the test's business."""
    stack.start("kafka")
    return stack.settings.kafka_bootstrap


@pytest.fixture(scope="session")
def redis(stack: Stack) -> str:
    """Address, as host:port, of a running Redis."""
    stack.start("redis")
    return f"127.0.0.1:{stack.settings.redis_port}"


@pytest.fixture(scope="session")
def triton(stack: Stack) -> str:
    """gRPC address of a running Triton; `stack.load_model` loads a version into it."""
    stack.start("triton")
    return stack.settings.triton_url


@pytest.fixture(scope="session")
def second_stack(
    stack: Stack, model_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """For another Triton, without a guard, that reads the same directory as the first."""
    home = tmp_path_factory.mktemp("second")
    (home / "triton").symlink_to(stack.models.parent)
    with Stack(home, free_settings(home), model_repository) as second:
        yield second


@pytest.fixture
def second_triton(triton: str, second_stack: Stack) -> Stack:
    """The two Tritons run; this is the other one's stack."""
    second_stack.start("triton")
    return second_stack


@pytest.fixture(scope="session")
def small_model(model_repository: Path) -> str:
    """Version of a small untrained model in the test's repository."""
    # Here, because torch takes seconds to import and most tests do without.
    from fm_intent.export import export
    from tests.unit.fm_intent import tiny
    from tests.unit.fm_intent.test_export import manifest

    sequences = tiny.sequences()
    model = tiny.network(sequences)
    return str(export(model, manifest(), tiny.windows(sequences), model_repository).version)


@pytest.fixture(scope="module")
def served_model(stack: Stack, triton: str, small_model: str) -> str:
    """Version of the small model, which a running Triton serves."""
    stack.load_model(small_model)
    return small_model


def isolate(settings: Settings, home: Path) -> Settings:
    """`settings` with names, files, a worker's port and a Redis database of its own."""
    number = next(_numbers)
    metrics_port, sink_port, console_port = free_ports(3)
    return settings.model_copy(
        update={
            "topic_prefix": f"test-{number}-",
            "consumer_group": f"test-{number}",
            "redis_url": SecretStr(f"127.0.0.1:{settings.redis_port},db={number % 16}"),
            "feature_registry": home / "registry.db",
            "data_dir": home / "worker",
            "metrics_port": metrics_port,
            "sink_port": sink_port,
            "console_port": console_port,
            "offline_dir": home,
        }
    )


@pytest.fixture
def isolated(stack: Stack, tmp_path: Path) -> Settings:
    """The servers' settings, isolated for one test.

    Starts nothing: a test asks for the servers that it needs as well.
    """
    return isolate(stack.settings, tmp_path)
