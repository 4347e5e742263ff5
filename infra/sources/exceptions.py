"""Errors of the sources; each message says what to do next."""

from __future__ import annotations

from infra.exceptions import InfraError


class SourceError(InfraError):
    """A source's data could not be prepared."""


class UnknownSourceError(SourceError):
    """The name is not one of `SOURCES`."""


class ArchiveUnavailableError(SourceError):
    """The archive that holds a source could not be downloaded."""


class UnexpectedDataError(SourceError):
    """The data differs from what its publisher describes, or breaks the contract on disk."""
