"""Errors of the features package. No message holds a password or a connection string."""

from __future__ import annotations


class FeaturesError(Exception):
    """Base of all errors of this package."""


class StoreUnavailableError(FeaturesError):
    """The online store did not answer, or can't take writes now. Retry the same write later."""


class StoreRefusedError(FeaturesError):
    """The online store answered with an error that needs an operator: access rights, wrong data.

    Retrying is harmless, because every write is fenced, but helps only after the cause is removed.
    """


class DefinitionsError(StoreRefusedError):
    """The registry, or a feature server, doesn't hold the definitions of this release."""


class NotStartedError(FeaturesError):
    """The writer was used before `start` or after `close`."""


class CandidatesError(FeaturesError):
    """A query's candidates can't be re-ranked as they are."""


class WeightsError(FeaturesError):
    """There are no weights for the re-ranker: a wrong file, or nothing to learn from."""


class BadRowError(FeaturesError):
    """The value of an `intent-features` record is no row."""


class NothingLandedError(FeaturesError):
    """The offline store has no files: nothing has been landed yet, or it is elsewhere."""


class TooManyProfilesError(FeaturesError, ValueError):
    """More profiles in one read than the store answers for in good time."""
