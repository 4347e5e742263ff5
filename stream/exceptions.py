"""Every error of the product, as one tree. No message holds a password; each says what to do.

IntentstreamError
    UnavailableError           a server didn't answer, or can't now: the same again later
    RefusedError               a server refused: somebody has to change something first
    BrokerError
        BrokerUnavailableError (UnavailableError)
            TokenUnavailableError
        BrokerRefusedError (RefusedError)
    RegistryUnavailableError (UnavailableError)
    MetricsUnavailableError (UnavailableError)
    InferenceError
        InferenceUnavailableError (UnavailableError)
            VersionNotServedError
        InferenceRefusedError (RefusedError)
    StoreError
        StoreUnavailableError (UnavailableError)
        StoreRefusedError (RefusedError)
            DefinitionsError
        UnfencedStoreError
    StreamError
        BadRecordError
            NoRecordError
        BadStateError
        CatalogueError
        TopicsMissingError
        TopicsMisconfiguredError
        TopicMismatchError
        TopicCreationError
        PartitionsChangedError
        ChangelogLostError
        RepartitionRefusedError
        LogReplacedError
        DeliveryFailedError
        InstanceIdTakenError
        ShuttingDownError
    AdapterError
        UnknownAdapterError
        AdapterOptionsError
    FeaturesError
        RepositoryExistsError
        NotStartedError
        CandidatesError
        WeightsError
        BadRowError
        NothingLandedError
        TooManyProfilesError
    ModelError
        DataUnusableError
        UnknownExperimentError
        CheckpointMismatchError
        ExportError
        NoClustersError
        VersionRefusedError
        NoVersionError
        SourceError
            UnknownSourceError
            DescriptionError
            ArchiveUnavailableError (UnavailableError)
            UnexpectedDataError
    DeploymentError
        ReleaseError
        TitlesNotServedError
        ModelVersionError
        ModelFolderError
        ServedOtherwiseError
    InvalidSettingsError
    MissingExtraError
    PortTakenError
    ActingRefusedError

The packages `infra` and `lab` hang theirs below the same root.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path


class Reason(StrEnum):
    """Why a record can never be applied; the value stands in its dead letter."""

    EMPTY = "empty"
    OVERSIZED = "oversized"
    UNREADABLE = "unreadable"
    BAD_UTF8 = "bad_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    KEY_MISMATCH = "key_mismatch"
    IN_THE_FUTURE = "in_the_future"


class IntentstreamError(Exception):
    """Root of every error that is raised on purpose."""


class UnavailableError(IntentstreamError):
    """A server did not answer, or can't do now what it was asked: do the same again later."""


class RefusedError(IntentstreamError):
    """A server refused what it was asked, and will again until somebody changes something."""


class BrokerError(IntentstreamError):
    """Base of what comes of asking Kafka."""


class BrokerUnavailableError(BrokerError, UnavailableError):
    """Kafka did not answer, or did not take records. Try again later."""


class TokenUnavailableError(BrokerUnavailableError):
    """There is no token to connect to Kafka with."""


class BrokerRefusedError(BrokerError, RefusedError):
    """Kafka refused us, or we its certificate; trying again helps once accounts or keys change."""


class RegistryUnavailableError(UnavailableError):
    """The schema registry did not answer, or answered other than a registry does."""


class MetricsUnavailableError(UnavailableError):
    """Prometheus did not answer, or answered other than it does."""


class InferenceError(IntentstreamError):
    """Base of what comes of asking Triton."""


class InferenceUnavailableError(InferenceError, UnavailableError):
    """Triton did not answer in time, or can't take the request now. Retry it later."""


class VersionNotServedError(InferenceUnavailableError):
    """Triton doesn't serve this version of the model, yet or any more."""


class InferenceRefusedError(InferenceError, RefusedError):
    """Triton refused a request for good: the model and the worker disagree on the contract."""


class StoreError(IntentstreamError):
    """Base of what comes of asking the online store, the registry or a feature server."""


class StoreUnavailableError(StoreError, UnavailableError):
    """The online store did not answer, or can't take writes now. Retry the same write later."""


class StoreRefusedError(StoreError, RefusedError):
    """The online store answered with an error that needs an operator: access rights, wrong data.

    Retrying is harmless, because equal rows overwrite, but helps only after the cause is removed.
    """


class DefinitionsError(StoreRefusedError):
    """The registry, or a feature server, doesn't hold the definitions of this release."""


class UnfencedStoreError(StoreError):
    """The online store doesn't refuse older features, and the settings don't accept that."""


class StreamError(IntentstreamError):
    """Base of what records, states, topics and the worker raise."""


class BadRecordError(StreamError):
    """A record that no retry can make good; it belongs into the dead-letter topic."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class NoRecordError(BadRecordError):
    """What stands in a file where a record should, and can't be read as one.

    Attributes:
        line: Its number in the file, from 1; 0 where the file has no lines.
        text: It, as it stands there.
    """

    def __init__(self, reason: Reason, detail: str, line: int = 0, text: str = "") -> None:
        super().__init__(reason, f"line {line}: {detail}" if line else detail)
        self.line = line
        self.text = text


class BadStateError(StreamError):
    """Bytes that are no session state: damaged, cut short, or of an unknown version."""


class CatalogueError(StreamError):
    """The title catalogue can't be read, or lacks columns that the worker needs."""


class LabelsError(StreamError, RefusedError):
    """What is to hold a model version's labels doesn't."""


class TopicsMissingError(StreamError):
    """Topics that the worker needs don't exist, or differ in their number of partitions."""


class TopicsMisconfiguredError(StreamError):
    """A topic is configured such that Kafka would lose, or never take, what it is given."""


class PartitionsChangedError(StreamError):
    """Topics have other partitions than states were put into; they have to be moved first."""


class ChangelogLostError(StreamError):
    """The changelog was made anew, so the states that stood in it are gone."""


class RepartitionRefusedError(StreamError):
    """States can't be moved to other partitions as things are."""


class LogReplacedError(StreamError):
    """A partition's log was exchanged for another while it was read; start again to read that."""


class ShuttingDownError(StreamError):
    """Work was given up unacknowledged because the worker stops or loses its partitions."""


class DeliveryFailedError(StreamError):
    """Kafka will not take records from this producer any more; a new process has a new one."""


class InstanceIdTakenError(StreamError):
    """Another process has joined the consumer group under this one's `INTENT_INSTANCE_ID`."""


class TopicMismatchError(StreamError):
    """An existing topic differs from what the settings ask for."""


class TopicCreationError(StreamError):
    """The broker refused to create a topic."""


class AdapterError(IntentstreamError):
    """Base of what choosing an adapter for another's events raises."""


class UnknownAdapterError(AdapterError):
    """There is no adapter of that name."""


class AdapterOptionsError(AdapterError):
    """Options that an adapter doesn't take, or lacks."""


class FeaturesError(IntentstreamError):
    """Base of what rows, readers and the re-ranker raise."""


class RepositoryExistsError(FeaturesError):
    """The folder that a Feast repository was to be written to holds one already."""


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


class FilesChangedError(FeaturesError):
    """Landed files were written anew again and again while they were read. Ask once more."""


class TooManyProfilesError(FeaturesError, ValueError):
    """More profiles in one read than the store answers for in good time."""


class ModelError(IntentstreamError):
    """Base of what training, evaluation and export raise."""


class DataUnusableError(ModelError):
    """The source data is missing, or can't teach a model."""


class UnknownExperimentError(ModelError):
    """There is no experiment of that name."""


class CheckpointMismatchError(ModelError):
    """A run directory holds the state of another experiment, data or seed."""


class WarmStartError(ModelError):
    """A training can't begin where the version that was named ended."""


class GateError(ModelError):
    """A trained model is not good enough to be exported."""


class ExportError(ModelError):
    """A model version can't be written, or doesn't give back what was exported."""


class NoClustersError(ModelError):
    """A model version has no clusters of intents."""


class VersionRefusedError(ModelError):
    """A model version must not be served."""


class NoVersionError(ModelError):
    """The model repository has no version that was asked for."""


class SourceError(ModelError):
    """A source's data could not be prepared."""


class UnknownSourceError(SourceError):
    """The name is not one of `sources()`."""


class DescriptionError(SourceError):
    """A `source.yaml` can't be read, or says what it can't."""


class ArchiveUnavailableError(SourceError, UnavailableError):
    """The archive that holds a source could not be downloaded."""


class UnexpectedDataError(SourceError):
    """The data differs from what its publisher describes, or breaks the contract on disk."""


class DeploymentError(IntentstreamError):
    """Base of what publishing, serving and taking back model versions raises."""


class ReleaseError(DeploymentError):
    """A model version can't be published or gone back to as things are."""


class TitlesNotServedError(DeploymentError):
    """A model version is live, but the titles' vectors that are served are not of it."""


class ModelVersionError(DeploymentError):
    """A model version is absent, or Triton can't load it."""


class ModelFolderError(DeploymentError):
    """The folder that Triton reads models from can't be written."""

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(
            f"the models in {folder} can't be changed ({error}); let this user write there, make "
            "room on the disk, or have INTENT_TRITON_MODELS name another folder that Triton reads"
        )


class ServedOtherwiseError(DeploymentError):
    """A served model version answers otherwise than the one that was exported."""


class InvalidSettingsError(IntentstreamError):
    """Settings of the environment are wrong, or don't go together."""


class MissingExtraError(IntentstreamError):
    """A command needs a package that this installation lacks."""

    def __init__(self, module: str, extras: Sequence[str]) -> None:
        super().__init__(
            f"{module} is not installed here; it comes with the extra {' or '.join(extras)}: run "
            f"`pip install 'intentstream[{extras[0]}]'`, or `make setup` in a checkout, which "
            "brings all. The worker's image has none on purpose: the publisher's has `serve`, and "
            "what else there is runs on a checkout"
        )


class PortTakenError(IntentstreamError):
    """A port that a program needs is in use by another process."""

    def __init__(self, program: str, port: int, variable: str) -> None:
        super().__init__(
            f"port {port} on 127.0.0.1, which {program} needs, is taken; "
            f"set {variable} to a free port or stop the process that listens there"
        )
        self.port = port
        self.variable = variable


class ActingRefusedError(IntentstreamError):
    """Nobody may act as a member through this console."""
