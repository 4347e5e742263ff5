"""Session: joins what was decoded into the profiles' states, and cuts their live sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from stream.domain import topics
from stream.domain.batch_states import BatchStates
from stream.domain.feature_row import Erasure
from stream.domain.interactions import NO_VERB, interactions_of
from stream.domain.profile_state import Outcome
from stream.domain.quick_events import EventFields
from stream.domain.rules import Rules
from stream.domain.sessions import live_sessions
from stream.domain.taking_in import (
    APPLIED,
    BEFORE_WINDOW,
    BEHIND_BROKER,
    ERASED,
    EVENT,
    STATELESS,
    UNCHANGED,
)
from stream.kafka.deadletters import late_event
from stream.kafka.topology import Topology
from stream.settings import StateSettings
from stream.worker.decoding import YIELD_EVERY
from stream.worker.forwarding import forwarded
from stream.worker.micro_batch import Decoded, MicroBatch, Touched
from stream.worker.states import Kept, States

_OUTCOMES: Final = {
    APPLIED: Outcome.APPLIED,
    UNCHANGED: Outcome.UNCHANGED,
    STATELESS: Outcome.STATELESS,
    ERASED: Outcome.ERASED,
    BEHIND_BROKER: Outcome.LATE,
    BEFORE_WINDOW: Outcome.LATE,
}
_LATE: Final = {BEHIND_BROKER: "behind_broker", BEFORE_WINDOW: "before_window"}


@dataclass(slots=True)
class _Arrivals:
    """What is to be done with states, in the order of arrival."""

    events: list[Decoded] = field(default_factory=list)
    rows: list[tuple[int, ...]] = field(default_factory=list)
    """Of `EVENT`, for each of them."""

    erasures: list[tuple[int, int, Decoded]] = field(default_factory=list)
    """Each with the number of events before it, and the state's row."""

    profiles: dict[bytes, Touched] = field(default_factory=dict)
    """Whose states these are, in the order of their rows."""

    def row_of(self, one: Decoded) -> int:
        """The row of the state that a record is about."""
        key = one.profile_id.encode()
        profile = self.profiles.get(key)
        if profile is None:
            profile = Touched(one.profile_id, one.record.partition, len(self.profiles))
            self.profiles[key] = profile
        return profile.row

    def add(self, one: Decoded, event: EventFields) -> None:
        """Add an event to those that are to be taken in."""
        record = one.record
        self.events.append(one)
        self.rows.append(
            (
                self.row_of(one),
                event.occurred_at_ms,
                one.broker_ms,
                # Where it stands in the log that was read, whoever wrote it there and when it
                # happened.
                round(record.timestamp * 1000),
                record.offset,
                record.partition,
                one.topic == topics.BROWSE_EVENTS,
                False,
            )
        )


class Joiner:
    """Applies events, erasures and requests to the states of profiles.

    Args:
        settings: what is too late, and what ends a session.
        rules: of the states.
        states: the profiles' states.
        topology: where states are; None where they are wherever their events come by.
    """

    def __init__(
        self, settings: StateSettings, rules: Rules, states: States, topology: Topology | None
    ) -> None:
        self._settings = settings
        self._rules = rules
        self._states = states
        self._place = topology.place() if topology else lambda _, found: found

    async def join(self, batch: MicroBatch, *, released_at_s: float) -> None:
        """Apply what was decoded, and keep the states, all together.

        Args:
            batch: with its decoded records.
            released_at_s: since when the model version that is live has been, epoch seconds.
        """
        arrivals = _Arrivals()
        for number, one in enumerate(batch.decoded):
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            outcome = self._arrive(one, arrivals, batch, released_at_s)
            if outcome is not None:
                batch.outcomes[one.topic, outcome.value] += 1
        batch.states = BatchStates.decoded(
            [self._states.fetch(key) for key in arrivals.profiles], self._rules
        )
        await asyncio.sleep(0)
        self._take_in(arrivals, batch)
        await asyncio.sleep(0)
        order = batch.states.touched()
        profiles = list(arrivals.profiles.items())
        batch.touched = dict(map(profiles.__getitem__, order.tolist()))
        values = batch.states.encoded(order)
        for (key, touched), value in zip(batch.touched.items(), values, strict=True):
            self._states.keep(touched.partition, key, value, batch.newest_s)
        self.settle(batch)

    def request(self, profiles: Sequence[Kept], batch: MicroBatch, *, released_at_s: float) -> None:
        """Have a batch publish profiles as their states are, and nothing else.

        Those are announced of which the release that is live is newer.
        """
        states = [self._states.fetch(one.key) for one in profiles]
        there = [
            (one, state) for one, state in zip(profiles, states, strict=True) if state is not None
        ]
        batch.states = BatchStates.decoded([state for _, state in there])
        for row, (one, _) in enumerate(there):
            touched = Touched(one.key.decode(), one.partition, row)
            batch.requested[one.key] = self._announced(one.key, touched, released_at_s)
        self.settle(batch)

    def _announced(self, key: bytes, touched: Touched, released_at_s: float) -> Touched:
        return touched._replace(is_announced=self._states.kept_last_s(key) >= released_at_s)

    def settle(self, batch: MicroBatch) -> None:
        """Cut the live sessions of those there is something to say of; the rest is emptied."""
        lengths = batch.states.heads["window"]
        erased_at_ms = batch.states.heads["erased_at_ms"]
        for key, one in (batch.requested | batch.touched).items():
            if lengths[one.row]:
                batch.scored[key] = one
            if one.profile_id in batch.erased or key not in batch.scored:
                newest_ms = batch.erased.get(one.profile_id, 0)
                batch.emptied[one.profile_id] = Erasure(int(erased_at_ms[one.row]), newest_ms)
        rows = np.array([one.row for one in batch.scored.values()], np.intp)
        batch.scored_states = batch.states.take(rows)
        batch.sessions = live_sessions(batch.scored_states, self._settings.session_gap_s)

    def _arrive(
        self, one: Decoded, arrivals: _Arrivals, batch: MicroBatch, released_at_s: float
    ) -> Outcome | None:
        """Put what a record asks for to the arrivals; the outcome where that tells it already."""
        record, key = one.record, one.profile_id.encode()
        if one.topic == topics.PROFILE_REPUBLICATIONS:
            if self._states.fetch(key) is None:
                return Outcome.STATELESS
            touched = Touched(one.profile_id, record.partition, arrivals.row_of(one))
            batch.requested[key] = self._announced(key, touched, released_at_s)
            return Outcome.UNCHANGED
        place = self._place(key, record.partition)
        if place != record.partition:
            batch.rejected.append(forwarded(one.topic, record, one.broker_ms, place))
            return Outcome.FORWARDED
        if one.event is None:
            arrivals.erasures.append((len(arrivals.events), arrivals.row_of(one), one))
        else:
            arrivals.add(one, one.event)
        return None

    def _take_in(self, arrivals: _Arrivals, batch: MicroBatch) -> None:
        events = np.array(arrivals.rows, EVENT)
        told = [one.event for one in arrivals.events if one.event]
        ids = [event.event_id for event in told]
        interactions = interactions_of(told)
        events["has_state"] = interactions["verb"] != NO_VERB
        outcomes, reached = np.empty(len(events), np.int8), np.empty(len(events), np.bool_)
        lateness_ms = self._settings.allowed_lateness_s * 1000
        done = 0

        def take_in(until: int) -> None:
            some = slice(done, until)
            outcomes[some], reached[some] = batch.states.take_in(
                events[some], interactions[some], ids[some], self._rules, lateness_ms
            )

        for before, row, one in arrivals.erasures:
            take_in(before)
            done = before
            self._erase(row, one, batch)
        take_in(len(events))
        batch.devices = interactions["device"]
        batch.broker_times = events["broker_ms"][reached] / 1000
        for one, outcome in zip(arrivals.events, outcomes.tolist(), strict=True):
            batch.outcomes[one.topic, _OUTCOMES[outcome].value] += 1
            if outcome in _LATE:
                batch.rejected.append(late_event(one.record, one.broker_ms, _LATE[outcome]))

    def _erase(self, row: int, one: Decoded, batch: MicroBatch) -> None:
        newest_ms = int(batch.states.heads["last_at_ms"][row])
        is_news = batch.states.erase(row, one.broker_ms)
        batch.erased[one.profile_id] = max(newest_ms, batch.erased.get(one.profile_id, 0))
        outcome = Outcome.APPLIED if is_news else Outcome.UNCHANGED
        batch.outcomes[one.topic, outcome.value] += 1
