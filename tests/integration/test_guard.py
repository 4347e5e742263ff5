"""A model process that no longer answers is noticed by a real inference, and restarted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from infra import probe
from infra.local.stack import Stack
from stream.ports import free_ports
from tests.conftest import free_settings
from tests.integration.test_local_stack import TINY_CONFIG, TINY_MODEL, infer
from tests.workers import exit_code, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Triton of its own, without its guard, that serves a model; version 2 takes its time."""
    home = tmp_path_factory.mktemp("guarded")
    slow = TINY_MODEL.replace(
        "        responses = []", "        time.sleep(3)\n        responses = []"
    )
    for version, code in (("1", TINY_MODEL), ("2", f"import time\n{slow}")):
        (home / "models" / "tiny" / version).mkdir(parents=True)
        (home / "models" / "tiny" / version / "model.py").write_text(code)
    both = "version_policy { latest { num_versions: 2 } }"
    (home / "models" / "tiny" / "config.pbtxt").write_text(TINY_CONFIG + both)
    settings = free_settings(home).model_copy(update={"model_name": "tiny"})
    with Stack(home / "stack", settings, home / "models") as stack:
        stack.start("triton")
        stack.load_model("1")
        yield stack


def url(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.settings.triton_http_port}"


def model_process(stack: Stack) -> psutil.Process:
    (process,) = psutil.Process(stack.pid("triton")).children()
    assert process.name().startswith("triton_python_b")
    return process


def probed(*arguments: str) -> int:
    """The exit code of the probe, run as a container's health check runs it."""
    command = [sys.executable, "-I", probe.__file__, *arguments]
    return subprocess.run(command, check=False).returncode


def test_a_server_that_answers_is_healthy(tiny: Stack) -> None:
    assert probed(url(tiny)) == 0
    assert {one.name: one.ready for one in tiny.status()}["triton"]


def test_where_nothing_listens_the_server_is_not_up() -> None:
    (port,) = free_ports(1)
    assert probed(f"http://127.0.0.1:{port}") == 1


def test_a_server_that_takes_requests_and_does_not_answer_is_told_from_one_that_is_not_up(
    tiny: Stack,
) -> None:
    os.kill(tiny.pid("triton"), signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            probe.stuck_versions(url(tiny), deadline_s=0.3)
    finally:
        os.kill(tiny.pid("triton"), signal.SIGCONT)
    until(lambda: probe.stuck_versions(url(tiny)) == [], "a server that answers again")


def test_only_the_version_that_does_not_answer_in_time_is_stuck(tiny: Stack) -> None:
    tiny.load_model("1", "2")
    try:
        assert probe.ready_versions(url(tiny)) == [("tiny", "1"), ("tiny", "2")]
        assert probe.stuck_versions(url(tiny), deadline_s=1.0) == ["tiny/2"]
    finally:
        tiny.load_model("1")
        server = psutil.Process(tiny.pid("triton"))
        until(lambda: len(server.children()) == 1, "the end of the slow version")


def test_a_dead_model_process_is_seen_by_the_probe_and_in_the_status(tiny: Stack) -> None:
    os.kill(model_process(tiny).pid, signal.SIGKILL)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        assert probed("--end", str(victim.pid), url(tiny)) == 2
        assert exit_code(victim) == -signal.SIGTERM
    assert not {one.name: one.ready for one in tiny.status()}["triton"]
    tiny.restart("triton")
    assert probed("--end", str(os.getpid()), url(tiny)) == 0


def test_the_guard_restarts_a_server_with_a_stuck_model_process(tiny: Stack) -> None:
    tiny.start("guard")
    server, model = tiny.pid("triton"), model_process(tiny)
    memory = {one.path for one in model.memory_maps() if one.path.startswith("/dev/shm/")}
    os.kill(model.pid, signal.SIGSTOP)
    until(lambda: tiny.pid("triton") not in (0, server), "a new server")
    tiny.wait("triton")
    assert infer(tiny) == 1.0
    assert memory
    assert not any(Path(path).exists() for path in memory)
    until(lambda: has_ended(model), "no process left behind")


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
