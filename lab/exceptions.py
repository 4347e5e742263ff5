"""Errors of the laboratory; each message says what to do next."""

from __future__ import annotations

from stream.exceptions import IntentstreamError


class SimulatorError(IntentstreamError):
    """Members could not be simulated, or a simulation not be read."""


class NobodyWatchesError(SimulatorError):
    """So few members and days that nothing happens."""


class TruthError(SimulatorError):
    """The hidden truth is missing, or is not of the histories it is asked about."""


class NotFrozenError(SimulatorError):
    """The simulator makes something else than what was frozen."""


class ReplayError(IntentstreamError):
    """A replay can't be planned, sent or checked."""


class EmptyReplayError(ReplayError):
    """There is nothing to send."""


class ProberError(ReplayError):
    """The prober's process ended before it was told to."""


class DemoError(IntentstreamError):
    """The demo can't go on."""


class StalledError(DemoError):
    """The worker has stopped taking in events."""


class CheckFailedError(DemoError):
    """Records are missing from the features, or wrong in them."""


class BenchmarkError(IntentstreamError):
    """Something can't be measured."""


class WayEndedError(BenchmarkError):
    """A program that was to be measured ended by itself."""


class TooFewEventsError(BenchmarkError):
    """All was worked off before it could be measured."""


class NothingDoneError(BenchmarkError):
    """A program that was to be measured works nothing off."""
