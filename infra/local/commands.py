"""What `intentstream up`, `down` and `status` do."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.table import Table

from infra.exceptions import ModelVersionError
from infra.local.paths import LOCAL, MODEL_REPOSITORY
from infra.local.stack import Stack, on_loopback
from infra.local.topics import create_topics
from stream.settings import Settings, settings

_console = Console()


def local_stack() -> Stack:
    """The stack of this checkout, with the settings of the environment; nothing is started."""
    return Stack(LOCAL, on_loopback(settings()))


def newest_model(name: str) -> str | None:
    """The highest exported version of the model `name`, None when there is none."""
    versions = [
        int(path.parent.name)
        for path in MODEL_REPOSITORY.glob(f"{name}/*/model.py")
        if path.parent.name.isdigit()
    ]
    return str(max(versions)) if versions else None


def up() -> None:
    """Starts the servers, creates the topics, loads the model and starts the worker.

    The stack stays when the command ends. It loads the version that `INTENT_MODEL_VERSION` names,
    else the newest.

    Raises:
        ModelVersionError: when no version was trained yet; the servers run by then.
        InfraError: when a program can't be started; see `Stack.start`.
    """
    stack = local_stack()
    stack.start("kafka", "redis", "triton")
    asyncio.run(create_topics(stack.settings))
    version = stack.settings.model_version or newest_model(stack.settings.model_name)
    if version is None:
        raise ModelVersionError(
            "Kafka, Redis and Triton run, but there is no model for the worker yet; "
            "`intentstream train` makes one, then run this command again"
        )
    stack.load_model(version)
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
        _console.print("The stack does not run; `make up` starts it.")
        return
    addresses = _addresses(stack.settings)
    table = Table("program", "state", "pid", "address", "log")
    for program in programs:
        table.add_row(
            program.name,
            program.state.lower(),
            str(program.pid or ""),
            addresses[program.name],
            str(program.log.relative_to(LOCAL.parent)),
        )
    _console.print(table)


def _addresses(current: Settings) -> dict[str, str]:
    return {
        "kafka": current.kafka_bootstrap,
        "redis": f"127.0.0.1:{current.redis_port}",
        "triton": f"{current.triton_url} (gRPC)",
        "worker": f"http://127.0.0.1:{current.metrics_port}/metrics",
    }
