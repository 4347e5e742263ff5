"""Registers the definitions of this release for Feast, beside a process that needs no Feast.

Who reads by Feast goes by the registry; what writes and reads Redis goes by `features.schema`, and
would pay seconds and hundreds of megabytes for Feast's import. So it registers from a process of
its own, and only where a note beside the registry doesn't say that this release is registered.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from features.registry.places import offline_dir, registry_of
from features.schema import views
from stream.exceptions import DefinitionsError

if TYPE_CHECKING:
    from pathlib import Path

    from stream.settings import Settings

REMEDY: Final = "Run `intentstream features apply` of this release, or start a worker of it."

EDITION: Final = 1
"""Of what `features.definitions` and `features.schema.title_match` say beside the views. Raise it
when that changes; a test tells when."""


def schema_digest() -> str:
    """Changes with whatever the views of this release are."""
    told = (views.PROJECT, views.profile_intent, views.title_profile, views.model_labels)
    return hashlib.sha256(repr((EDITION, *told)).encode()).hexdigest()


def is_noted(registry: Path) -> bool:
    """Whether the registry is as it was when this release was registered in it."""
    try:
        return _note(registry).read_text() == _mark(registry)
    except OSError:
        return False


def note(registry: Path) -> None:
    """Write down that this release is registered."""
    _note(registry).write_text(_mark(registry))


def _note(registry: Path) -> Path:
    return registry.with_name(f"{registry.name}.registered")


def _mark(registry: Path) -> str:
    content = hashlib.sha256(registry.read_bytes()).hexdigest()
    return f"{schema_digest()} {content}\n"


class Registration:
    """Registers the definitions of this release where they aren't yet, in a process of its own.

    Args:
        settings: Where the registry is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._done: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, if need be; at once where this process has imported Feast already.

        Raises:
            DefinitionsError: when the registry can't be read or written, as far as it is known now.
        """
        registry = registry_of(self._settings)
        if is_noted(registry):
            return
        if "feast" in sys.modules:
            from features.registry.store import apply

            await asyncio.to_thread(apply, self._settings)
            return
        command = [sys.executable, "-P", "-W", "ignore", "-m", "features.registry"]
        self._process = subprocess.Popen(  # noqa: S603
            [*command, str(registry), str(offline_dir(self._settings).absolute())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._done = asyncio.create_task(asyncio.to_thread(_ended, self._process))

    @property
    def is_done(self) -> bool:
        """Whether who reads by Feast finds the definitions."""
        return self._done is None or (self._done.done() and self._done.exception() is None)

    def insist(self) -> None:
        """Look whether it has failed by now.

        Raises:
            DefinitionsError: as `start`.
        """
        if self._done and self._done.done():
            self._done.result()

    async def close(self) -> None:
        """End it, done or not; the registry is whole either way."""
        if self._process and self._done:
            self._process.terminate()
            with suppress(DefinitionsError):
                await self._done
            self._process = self._done = None


def _ended(process: subprocess.Popen[str]) -> None:
    _, told = process.communicate()
    if process.returncode:
        raise DefinitionsError(told.strip() or f"registering ended with {process.returncode}")
