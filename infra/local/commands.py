"""What `intentstream up`, `down` and `status` do."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.table import Table

from fm_intent.data.contract import CATALOGUE_FILE
from infra.exceptions import StackError
from infra.local.local_model import model_of
from infra.local.stack import ProgramStatus, Stack, on_loopback
from intentstream.paths import LOCAL, MODEL_REPOSITORY
from stream.inference.release import read_release
from stream.kafka.admin import create_topics
from stream.settings import Settings, settings
from stream.steps import console, step

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

SMALL_SOURCE: Final = "movietweetings"
"""What a first model is trained on: small, and carried by the repository."""


def local_stack() -> Stack:
    """The stack of this checkout, with the settings of the environment; nothing is started."""
    return Stack(LOCAL, on_loopback(settings()))


def up(*, servers_alone: bool = False) -> None:
    """Starts the servers, creates the topics, loads the model, starts worker, sink and console.

    The stack stays when the command ends. It serves the version that `INTENT_MODEL_VERSION` pins,
    else the one that was published. When none was, it publishes the newest; when there is none at
    all, a small one is trained on the data that the repository carries. The titles that the version
    carries are published with its vectors, and give next titles their names, unless
    `INTENT_CATALOGUE` names other ones.

    Args:
        servers_alone: Start Kafka, Redis and Triton, create the topics, and leave it at that.

    Raises:
        InfraError: when a program can't be started; see `Stack.start`.
        ModelError: when there is no such version, or it must not be served.
    """
    from fm_intent.export import read_manifest
    from fm_intent.model_config import MODEL
    from intentstream.served_titles import serve_titles, titles_of

    current = on_loopback(settings())
    stack = Stack(LOCAL, current)
    current = current.model_copy(update={"triton_models": stack.models})
    with step("start Kafka, Redis and Triton"):
        stack.start("kafka", "redis", "triton", "guard")
    asyncio.run(create_topics(current))
    if servers_alone:
        status()
        return
    live = _serve(stack, current)
    source = read_manifest(stack.models, int(live)).source
    carried = (stack.models / MODEL / live / CATALOGUE_FILE).exists()
    prepared = LOCAL / "data" / source / CATALOGUE_FILE
    if current.catalogue is None and not carried and prepared.exists():
        current = current.model_copy(update={"catalogue": prepared})
    console.print(f"model version {live}, trained on {source}")
    if carried or prepared.exists():
        with step("publish the titles and their vectors"):
            serve_titles(current, titles_of(int(live), stack.models, LOCAL))
    stack = Stack(LOCAL, current)
    with step("start the worker, the sink and the console"):
        stack.start("worker", "sink", "console")
    status()
    console.print(f"See it live at {console_url(current)}")


def _serve(stack: Stack, current: Settings) -> str:
    """Has the stack serve the pinned and the published versions, or a first one; which answers."""
    from fm_intent.export import versions

    release = asyncio.run(read_release(current))
    if answers := current.model_version or release.live:
        stack.load_model(answers, also=[release.live, release.previous])
        return answers
    newest = max(versions(MODEL_REPOSITORY), default=0) or model_of(SMALL_SOURCE, seed=1).version
    from intentstream.publishing import publish  # with Feast; `status` does without

    return asyncio.run(publish(current, str(newest))).release.live


def down(programs: Collection[str] = ()) -> None:
    """Stops these programs of the stack, or all where none is named. Their data stays in `.local`.

    Raises:
        StackError: when there is no such program.
    """
    stack = local_stack()
    known = [program.name for program in stack.status()]
    if strangers := sorted(set(programs) - set(known)):
        raise StackError(
            f"no such programs run: {', '.join(strangers)}; these do: {', '.join(known) or 'none'}"
        )
    for name in programs:
        stack.stop_program(name)
    if not programs:
        stack.stop()


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
    if stack.settings.online_store != "redis":
        console.print(_store_remark(stack.settings))
    for program in programs:
        for line in _remarks(program):
            console.print(line)


def _store_remark(current: Settings) -> str:
    """What becomes of older features in an online store that isn't ours in Redis."""
    from features.online.fence import fence_of
    from features.registry.store import open_store

    fence = fence_of(open_store(current).provider.online_store)
    return f"The online store is {current.online_store}, not Redis: {fence}."


def _remarks(program: ProgramStatus) -> Iterator[str]:
    """Remarks on a program that has ended."""
    if not program.ended_at:
        return
    ended = f"{program.name} ended at {datetime.fromtimestamp(program.ended_at):%H:%M:%S}"
    if program.pid:
        again = f"{datetime.fromtimestamp(program.started_at):%H:%M:%S}"
        yield f"{ended} and was started again at {again}; its log says why."
    else:
        yield f"{ended}, its log says why; `make up` starts it again."


def console_url(current: Settings) -> str:
    """Where a browser finds the console of the local stack."""
    return f"http://127.0.0.1:{current.console_port}/"


def _addresses(current: Settings) -> dict[str, str]:
    return {
        "kafka": current.kafka_bootstrap,
        "redis": f"127.0.0.1:{current.redis_port}",
        "triton": f"{current.triton_url} (gRPC)",
        "guard": "",
        "worker": f"http://127.0.0.1:{current.metrics_port}/metrics",
        "sink": f"http://127.0.0.1:{current.sink_port}/metrics",
        "console": console_url(current),
    }
