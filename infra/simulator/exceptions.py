"""Errors of the simulator; each message says what to do next."""

from __future__ import annotations

from infra.exceptions import InfraError


class SimulatorError(InfraError):
    """Members could not be simulated, or a simulation not be read."""


class NobodyWatchesError(SimulatorError):
    """So few members and days that nothing happens."""


class TruthError(SimulatorError):
    """The hidden truth is missing, or is not of the histories it is asked about."""


class NotFrozenError(SimulatorError):
    """The simulator makes something else than what was frozen."""
