"""Errors of the replay; each message says what to do next."""

from __future__ import annotations

from infra.exceptions import InfraError


class ReplayError(InfraError):
    """A replay can't be planned, sent or checked."""


class EmptyReplayError(ReplayError):
    """There is nothing to send."""


class ProberError(ReplayError):
    """The prober's process ended before it was told to."""
