"""Errors of the streaming side, one tree."""

from __future__ import annotations

from enum import StrEnum


class StreamError(Exception):
    """Base of every error that `stream` raises on purpose."""


class Reason(StrEnum):
    """Why a record can never be taken in; the value stands in its dead letter."""

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


class BadRecord(StreamError):
    """A record that no retry can make good; it belongs into the dead-letter topic."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BadState(StreamError):
    """Bytes that are no session state: damaged, cut short, or of an unknown version."""


class CatalogueError(StreamError):
    """The title catalogue can't be read, or lacks columns that the worker needs."""


class InferenceUnavailable(StreamError):
    """Triton did not answer in time, or can't take the request now. Retry it later."""


class VersionNotServed(InferenceUnavailable):
    """Triton doesn't serve this version of the model, yet or any more."""


class InferenceRefused(StreamError):
    """Triton refused a request for good: the model and the worker disagree on the contract."""


class TopicsMissing(StreamError):
    """Topics that the worker needs don't exist, or differ in their number of partitions."""


class TopicsMisconfigured(StreamError):
    """A topic is configured such that Kafka would lose, or never take, what it is given."""


class PartitionsChanged(StreamError):
    """Topics have other partitions than states were put into; they have to be moved first."""


class ChangelogLost(StreamError):
    """The changelog was made anew, so the states that stood in it are gone."""


class RepartitionRefused(StreamError):
    """States can't be moved to other partitions as things are."""


class LogReplaced(StreamError):
    """A partition's log was exchanged for another while it was read; start again to read that."""


class ShuttingDown(StreamError):
    """Work was given up unacknowledged because the worker stops or loses its partitions."""


class InvalidSettings(StreamError):
    """Settings of the environment are wrong, or don't go together."""


class BrokerUnavailable(StreamError):
    """Kafka did not answer, or did not take records. Try again later."""


class DeliveryFailed(StreamError):
    """Kafka will not take records from this producer any more; a new process has a new one."""


class InstanceIdTaken(StreamError):
    """Another process has joined the consumer group under this one's `INTENT_INSTANCE_ID`."""


class TokenUnavailable(BrokerUnavailable):
    """There is no token to connect to Kafka with."""


class BrokerRefused(BrokerUnavailable):
    """Kafka refused us, or we its certificate; trying again helps once accounts or keys change."""
