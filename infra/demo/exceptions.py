"""Errors of the demo; each message says what to do next."""

from __future__ import annotations

from infra.exceptions import InfraError


class DemoError(InfraError):
    """The demo can't go on."""


class StalledError(DemoError):
    """The worker has stopped taking in events."""


class CheckFailedError(DemoError):
    """Records are missing from the features, or wrong in them."""
