"""Who works a traffic off in the benchmark of a worker, by name: our codes, and plain programs.

Quix Streams is not among them: 3.28.1, its newest release, asks for pydantic-settings below 2.16,
`constraints.txt` pins a newer one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from infra.local.programs import worker_environment
from lab.exceptions import BenchmarkError, WayEndedError
from stream.domain.topics import SESSIONS_CHANGELOG
from stream.home import HOME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream.settings import Settings

WORKER: Final = "worker"
BEFORE: Final = "before"

_TOLD_LINES: Final = 20
"""Of the log of a program that can't be measured."""

_PUBLISH: Final = """
import asyncio
import sys
from pathlib import Path

import torch

from intentstream.publishing import publish
from lab.bench.running_worker import exported
from stream.settings import Settings

torch.set_num_threads(1)
exports = Path(sys.argv[1])
(version,) = exported(exports, 0.0)
asyncio.run(publish(Settings(), version, exports=exports))
"""
"""Exports a version, untrained, and makes it live: by whatever code runs it."""


@dataclass(frozen=True, slots=True)
class Way:
    """A program that works events off.

    Attributes:
        command: what `python -m` runs.
        group: its consumer group; empty: that of the settings.
        changelog: where it finds the states that were kept before.
        code: the tree that it, and the model that it asks, is of.
    """

    command: tuple[str, ...] = ("intentstream", "worker")
    group: str = ""
    changelog: str = SESSIONS_CHANGELOG
    code: Path = HOME

    @property
    def is_ours(self) -> bool:
        """Whether it says that nothing is lost, and follows what was published."""
        return not self.group

    def publish(self, settings: Settings, exports: Path) -> None:
        """Register the features, export a version into an empty model repository, make it live."""
        for command in (
            ("-m", "intentstream", "features", "apply"),
            ("-c", _PUBLISH, str(exports)),
        ):
            subprocess.run(  # noqa: S603 - our own command
                [sys.executable, *command],
                cwd=self.code,
                env=self._environment(settings),
                stdout=subprocess.DEVNULL,
                check=True,
            )

    @contextmanager
    def running(self, settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Runs while the block does.

        Raises:
            WayEndedError: when it ended by itself. Notes of this and of any other `BenchmarkError`
                tell the end of its log, which goes with the servers.
        """
        if not self.is_ours:
            settings = settings.model_copy(update={"model_version": "1"})
        # Faust makes the last folder alone.
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", *self.command],
                cwd=self.code,
                env=self._environment(settings),
                stdout=out,
                stderr=out,
            )
        try:
            yield process
            if process.poll() is not None:
                raise WayEndedError(f"{' '.join(self.command)} ended with {process.returncode}")
        except BenchmarkError as error:
            error.add_note("\n".join(log.read_text(errors="replace").splitlines()[-_TOLD_LINES:]))
            raise
        finally:
            process.terminate()
            process.wait(timeout=60)

    def _environment(self, settings: Settings) -> dict[str, str]:
        # The registry of one code would be another's to write anew, and a tree stands ahead of the
        # editable installation, which is of the code of now.
        registry = settings.data_dir.with_name(f"{self.code.name}.db")
        own = settings.model_copy(update={"feature_registry": registry})
        return {**os.environ, **worker_environment(own), "PYTHONPATH": str(self.code)}


def ways(before: Path | None) -> dict[str, Way]:
    """All ways, in the order in which they take turns.

    Args:
        before: the tree of another code of ours; None leaves it out.
    """
    one_by_one = "plain-one-by-one"
    return {
        WORKER: Way(),
        **({BEFORE: Way(code=before)} if before else {}),
        "aiokafka": Way(("lab.bench.plain_consumer",), "plain-consumer"),
        "faust-batches": Way(_faust("in_batches"), "plain-in-batches"),
        "faust": Way(
            _faust("one_by_one"), one_by_one, f"{one_by_one}-{one_by_one}-states-changelog"
        ),
    }


def _faust(app: str) -> tuple[str, ...]:
    command = ("faust", "-A", f"lab.bench.plain_agent:{app}", "worker")
    return (*command, "--without-web", "--loglevel", "warn")
