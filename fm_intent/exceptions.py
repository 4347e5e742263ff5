"""Errors of training, evaluation and export; each message says what to do next."""


class ModelError(Exception):
    """Base of this package's errors."""


class DataUnusableError(ModelError):
    """The source data is missing, or can't teach a model."""


class UnknownExperimentError(ModelError):
    """There is no experiment of that name."""


class CheckpointMismatchError(ModelError):
    """A run directory holds the state of another experiment, data or seed."""


class ExportError(ModelError):
    """A model version can't be written, or doesn't give back what was exported."""


class NoClustersError(ModelError):
    """A model version has no clusters of intents."""


class VersionRefusedError(ModelError):
    """A model version must not be served."""


class NoVersionError(ModelError):
    """The model repository has no version that was asked for."""
