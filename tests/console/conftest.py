"""A real Chromium that looks at the console of a real stack. `make test-console` sets it up."""

from __future__ import annotations

import asyncio
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from infra.local.stack import Stack
from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests.conftest import isolate
from tests.workers import until, worker

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

T = TypeVar("T")

ANSWER_MS = 60_000
"""What a page may take on a busy machine."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="run `make test-console`")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("there is no chromium on PATH; run `make test-console`, which installs it")
    with playwright.sync_playwright() as running:
        # Its sandbox doesn't run as root, as CI does; it opens our own pages alone.
        one = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield one
        one.close()


@dataclass(frozen=True, slots=True)
class Served:
    """A console that runs.

    Attributes:
        settings: of it and of what it looks at.
        url: where it is.
        version: of the model that answers.
    """

    settings: Settings
    url: str
    version: str


@pytest.fixture(scope="module")
def served(
    stack: Stack,
    kafka: str,
    redis: str,
    served_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """A worker, and the console that looks at it, for all tests of a module."""
    home = tmp_path_factory.mktemp("console")
    config = isolate(stack.settings, home)
    workers, tritons = config.metrics_port, config.triton_metrics_port
    config = config.model_copy(
        update={
            "model_version": served_model,
            "triton_models": stack.models,
            "console_targets": f"worker=127.0.0.1:{workers},triton=127.0.0.1:{tritons}",
            "console_may_act": True,
        }
    )
    aside(lambda: asyncio.run(create_topics(config)))
    with (
        worker(config, home / "worker.log", wait=True),
        console(config, home / "console.log") as url,
    ):
        yield Served(config, url, served_model)


def aside(action: Callable[[], T]) -> T:
    """What an action answers, done in a thread: Playwright has an event loop run in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(action).result()


@contextmanager
def console(settings: Settings, log: Path) -> Iterator[str]:
    """A console process of these settings; its address, once it answers."""
    url = f"http://127.0.0.1:{settings.console_port}"
    with worker(settings, log, "intentstream", "console"):
        until(lambda: answers(f"{url}/health"), f"the console; see {log}")
        yield url


def answers(url: str) -> bool:
    """Whether something answers there with success."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new window; what its scripts complain of, or a stranger's does, fails the test."""
    context = browser.new_context(color_scheme="light")
    context.set_default_timeout(ANSWER_MS)
    one = context.new_page()
    problems: list[str] = []
    one.on("pageerror", lambda error: problems.append(str(error)))
    one.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    one.on(
        "console",
        lambda told: problems.append(told.text) if "Security Policy" in told.text else None,
    )
    yield one
    context.close()
    assert problems == []
