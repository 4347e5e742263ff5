"""What is known of a micro-batch on its way: decode → session → infer → publish."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from stream.domain.event_types import Event
from stream.domain.feature_row import Erasure
from stream.domain.profile_state import ProfileState
from stream.domain.sessions import NO_SESSION, Session
from stream.kafka.deadletters import Record
from stream.kafka.outbox import Outgoing


class StampedRecord(Record, Protocol):
    """A consumed record with its broker time."""

    timestamp: float
    """Seconds since the epoch (`LogAppendTime`)."""


class Decoded(NamedTuple):
    """A record that could be decoded."""

    record: StampedRecord
    topic: str
    """Without the prefix."""

    broker_ms: int
    """Broker time, Unix milliseconds; of a forwarded copy that of its original."""

    profile_id: str
    event: Event | None
    """None for a request to erase the profile or to publish it again."""


@dataclass(slots=True)
class Touched:
    """A profile that a batch touched, with its newest state."""

    profile_id: str
    partition: int
    state: ProfileState

    session: Session = NO_SESSION
    """The one that is live after the batch."""

    is_announced: bool = False
    """Whether the same row, of the version that is live, was announced before."""


@dataclass(slots=True)
class MicroBatch:
    """What became of a micro-batch's records.

    Of the profiles touched, once all events are applied, `scored` are those that there is something
    to say of. `emptied` are those that the batch has an erasure of, and those of which nothing is
    left: what is online of them goes before anything new is published.
    """

    consumed_at: float
    newest_s: float
    """Broker time, in seconds, of the newest record."""

    decoded: list[Decoded] = field(default_factory=list)
    rejected: list[Outgoing] = field(default_factory=list)
    """Dead letters, late events, and events that are forwarded to another partition."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many records of each topic had which outcome."""

    touched: dict[bytes, Touched] = field(default_factory=dict)
    requested: dict[bytes, Touched] = field(default_factory=dict)
    """Profiles that are to be published as they are; their states are not kept anew."""

    scored: dict[bytes, Touched] = field(default_factory=dict)
    emptied: dict[str, Erasure] = field(default_factory=dict)
    broker_times: list[float] = field(default_factory=list)
    """Broker time, in seconds, of each event that touched a profile."""

    erased: dict[str, int] = field(default_factory=dict)
    """Of profiles that the batch has an erasure of, the time of the newest event that was erased,
    Unix milliseconds."""

    inferred_at: float = 0.0

    @property
    def profiles(self) -> list[tuple[str, ProfileState]]:
        """Ids and states of the profiles to be scored, each once."""
        return [(one.profile_id, one.state) for one in self.scored.values()]

    @property
    def sessions(self) -> list[Session]:
        """The live sessions of the same profiles."""
        return [one.session for one in self.scored.values()]
