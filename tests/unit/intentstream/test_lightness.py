"""What starts brings no more than it uses: what is heavy is imported where it is needed."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

READ: Final = """
from intentstream import IntentReader, Settings
from stream.exceptions import StoreUnavailableError
try:
    IntentReader(Settings(redis_url="127.0.0.1:1")).read(["me"])
except StoreUnavailableError:
    pass
else:
    raise AssertionError("a server answers at port 1")
"""
RERANK: Final = """
from intentstream import Candidate, Reranker, Settings
from stream.exceptions import StoreUnavailableError
try:
    Reranker(Settings(redis_url="127.0.0.1:1")).rerank("me", [Candidate("s1")])
except StoreUnavailableError:
    pass
else:
    raise AssertionError("a server answers at port 1")
"""
COMMAND: Final = """
import sys
from intentstream.cli.main import main
sys.argv = ["intentstream", {arguments}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
ALWAYS: Final = {"duckdb", "feast", "pandas", "scipy", "torch"}
"""What nothing that serves members needs."""


def loaded(program: str) -> set[str]:
    """Top-level modules of a process that has run it."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint()\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_reading_a_feature_brings_the_client_of_the_store_and_no_more() -> None:
    found = loaded(READ)
    assert "redis" in found
    assert not found & (ALWAYS | {"aiokafka", "faust", "httpx", "numba", "pyarrow", "tritonclient"})


def test_a_re_ranker_brings_no_feast() -> None:
    assert not loaded(RERANK) & (ALWAYS | {"aiokafka", "faust", "numba", "pyarrow", "tritonclient"})


@pytest.mark.parametrize("module", ["stream.worker.app", "stream.worker.sink"])
def test_a_worker_and_a_sink_bring_no_feast_and_no_model(module: str) -> None:
    # numba looks which scipy there is, and loads no more of it.
    assert not loaded(f"import {module}") & (ALWAYS - {"scipy"})


@pytest.mark.parametrize(
    "module",
    [
        "stream.kafka.admin",
        "stream.kafka.dlq",
        "stream.kafka.lag",
        "stream.kafka.erasure",
        "stream.kafka.republication",
        "intentstream.release_report",
    ],
)
def test_what_a_command_asks_kafka_with_brings_neither_feast_nor_a_compiler(module: str) -> None:
    assert not loaded(f"import {module}") & (ALWAYS | {"numba", "pyarrow"})


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["worker", "--help"],
        ["dlq", "list", "--help"],
        ["features", "apply", "--help"],
        ["train", "--help"],
        ["up", "--help"],
        ["schema", "browse-events"],
        ["data", "schema"],
    ],
    ids=" ".join,
)
def test_a_command_that_tells_something_brings_nothing_heavy(arguments: list[str]) -> None:
    program = COMMAND.format(arguments=", ".join(map(repr, arguments)))
    assert not loaded(program) & (ALWAYS | {"faust", "numba", "pyarrow", "tritonclient"})
