"""What `intentstream up`, `down` and `status` do."""

from __future__ import annotations

import asyncio
from typing import Final

from rich.table import Table

from infra.local.models import model_of
from infra.local.paths import LOCAL, MODEL_REPOSITORY
from infra.local.stack import Stack, on_loopback
from infra.local.topics import create_topics
from infra.sources.contract import CATALOGUE_FILE
from infra.steps import console, step
from stream.settings import Settings, settings

SMALL_SOURCE: Final = "movietweetings"
"""What a first model is trained on: small, and carried by the repository."""


def local_stack() -> Stack:
    """The stack of this checkout, with the settings of the environment; nothing is started."""
    return Stack(LOCAL, on_loopback(settings()))


def up() -> None:
    """Starts the servers, creates the topics, loads the model and starts the worker.

    The stack stays when the command ends. It loads the version that `INTENT_MODEL_VERSION` names,
    else the newest; when there is none, a small one is trained on the data that the repository
    carries. Titles get the names of the catalogue that the version was trained on, unless
    `INTENT_CATALOGUE` names another.

    Raises:
        InfraError: when a program can't be started; see `Stack.start`.
        NoVersionError: when there is no such version.
    """
    from fm_intent.export import read_manifest, versions

    current = on_loopback(settings())
    stack = Stack(LOCAL, current)
    with step("start Kafka, Redis and Triton"):
        stack.start("kafka", "redis", "triton")
    asyncio.run(create_topics(current))
    newest = max(versions(MODEL_REPOSITORY), default=0)
    number = int(current.model_version or newest or model_of(SMALL_SOURCE, seed=1).version)
    manifest = read_manifest(MODEL_REPOSITORY, number)
    catalogue = LOCAL / "data" / manifest.source / CATALOGUE_FILE
    updates: dict[str, object] = {"model_version": str(number)}
    if current.catalogue is None and catalogue.exists():
        updates["catalogue"] = catalogue
    stack = Stack(LOCAL, current.model_copy(update=updates))
    with step(f"load model version {number}, trained on {manifest.source}"):
        stack.load_model(str(number))
    with step("start the worker"):
        stack.start("worker")
    status()


def down() -> None:
    """Stops every program of the stack. Their data stays in `.local`."""
    local_stack().stop()


def status() -> None:
    """Prints what runs, where it listens and where it logs."""
    stack = local_stack()
    programs = stack.status()
    if not programs:
        console.print("The stack does not run; `make up` starts it.")
        return
    addresses = _addresses(stack.settings)
    table = Table("program", "state", "ready", "pid", "address", "log")
    for program in programs:
        table.add_row(
            program.name,
            program.state.lower(),
            "yes" if program.ready else "no",
            str(program.pid or ""),
            addresses[program.name],
            str(program.log.relative_to(LOCAL.parent)),
        )
    console.print(table)


def _addresses(current: Settings) -> dict[str, str]:
    return {
        "kafka": current.kafka_bootstrap,
        "redis": f"127.0.0.1:{current.redis_port}",
        "triton": f"{current.triton_url} (gRPC)",
        "guard": "",
        "worker": f"http://127.0.0.1:{current.metrics_port}/metrics",
    }
