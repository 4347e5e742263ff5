"""What is known of a micro-batch on its way: decode → session → infer → publish."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.domain.batch_states import BatchStates
from stream.domain.feature_row import Erasure
from stream.domain.quick_events import EventFields
from stream.domain.sessions import Session
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
    event: EventFields | None
    """None for a request to erase the profile or to publish it again."""


class Touched(NamedTuple):
    """A profile that a batch touched, or is to publish."""

    profile_id: str
    partition: int
    row: int
    """Of its state in the batch's."""

    is_announced: bool = False
    """Whether the same row, of the version that is live, was announced before."""


def _done() -> asyncio.Future[None]:
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


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

    states: BatchStates = field(default_factory=lambda: BatchStates.decoded([]))
    """Of all profiles that the batch has something of."""

    saved: asyncio.Future[None] = field(default_factory=_done)
    """Ends when what was rejected, and the states that were touched, are with the broker."""

    touched: dict[bytes, Touched] = field(default_factory=dict)
    requested: dict[bytes, Touched] = field(default_factory=dict)
    """Profiles that are to be published as they are; their states are not kept anew."""

    scored: dict[bytes, Touched] = field(default_factory=dict)
    scored_states: BatchStates = field(default_factory=lambda: BatchStates.decoded([]))
    sessions: list[Session] = field(default_factory=list)
    """Of those that are scored, the ones that are live after the batch."""

    emptied: dict[str, Erasure] = field(default_factory=dict)
    broker_times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Broker time, in seconds, of each event that touched a profile."""

    devices: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    """`device_hash` of each event's device, 0 where it names none."""

    erased: dict[str, int] = field(default_factory=dict)
    """Of profiles that the batch has an erasure of, the time of the newest event that was erased,
    Unix milliseconds."""

    inferred_at: float = 0.0
    spans: Sequence[Any] = ()
    """Of events whose way is traced, by `stream.worker.tracing`."""

    @property
    def profile_ids(self) -> list[str]:
        """Of the profiles to be scored, each once."""
        return [one.profile_id for one in self.scored.values()]
