"""Errors of the local stack, its set-up and what runs on it. Each message says what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class InfraError(Exception):
    """Root of the errors that `infra` raises."""


class SetupIncompleteError(InfraError):
    """Something that `make setup` provides is missing."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"{missing} is missing; run `make setup`")


class MissingExtraError(InfraError):
    """A command needs a package that this installation lacks."""

    def __init__(self, module: str, extras: Sequence[str]) -> None:
        super().__init__(
            f"{module} is not installed here; it comes with the extra {' or '.join(extras)}: run "
            f"`pip install --editable '.[{extras[0]}]'` in a checkout, or `make setup`, which "
            "brings all. The worker's image has none on purpose: the publisher's has `serve`, and "
            "what else there is runs on a checkout"
        )


class PortTakenError(InfraError):
    """A port that a program needs is in use by another process."""

    def __init__(self, program: str, port: int, variable: str) -> None:
        super().__init__(
            f"port {port} on 127.0.0.1, which {program} needs, is taken; "
            f"set {variable} to a free port or stop the process that listens there"
        )
        self.port = port
        self.variable = variable


class ProgramFailedError(InfraError):
    """A supervised program ended, or was not ready in time."""

    def __init__(self, program: str, what: str, log: Path, tail: str) -> None:
        super().__init__(f"{program} {what}; its log {log} ends with:\n{tail}")
        self.program = program


class StackError(InfraError):
    """The supervisor of a local stack can't be started or used."""


class TopicMismatchError(InfraError):
    """An existing topic differs from what the settings ask for."""


class TopicCreationError(InfraError):
    """The broker refused to create a topic."""


class ReleaseError(InfraError):
    """A model version can't be published or gone back to as things are."""


class TitlesNotServedError(InfraError):
    """A model version is live, but the titles' vectors that are served are not of it."""


class ModelVersionError(InfraError):
    """A model version is absent, or Triton can't load it."""


class ModelFolderError(InfraError):
    """The folder that Triton reads models from can't be written."""

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(
            f"the models in {folder} can't be changed ({error}); let this user write there, make "
            "room on the disk, or have INTENT_TRITON_MODELS name another folder that Triton reads"
        )


class ServedOtherwiseError(InfraError):
    """A served model version answers otherwise than the one that was exported."""
