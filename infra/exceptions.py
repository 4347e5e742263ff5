"""Errors of the local stack and its set-up. Each message says what to do next."""

from __future__ import annotations

from pathlib import Path

from stream.exceptions import IntentstreamError


class InfraError(IntentstreamError):
    """Base of what the local stack raises."""


class SetupIncompleteError(InfraError):
    """Something that `make setup` provides is missing."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"{missing} is missing; run `make setup`")


class ProgramFailedError(InfraError):
    """A supervised program ended, or was not ready in time."""

    def __init__(self, program: str, what: str, log: Path, tail: str) -> None:
        super().__init__(f"{program} {what}; its log {log} ends with:\n{tail}")
        self.program = program


class StackError(InfraError):
    """The supervisor of a local stack can't be started or used."""
