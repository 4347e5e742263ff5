"""Session: joins what was decoded into the profiles' states, and cuts their live sessions."""

from __future__ import annotations

import asyncio

from stream.domain import codec, topics
from stream.domain.event_types import Event
from stream.domain.feature_row import Erasure
from stream.domain.interactions import carries_state
from stream.domain.profile_state import LogPosition, Outcome, ProfileState
from stream.domain.rules import Rules
from stream.domain.sessions import live_sessions
from stream.kafka.deadletters import late_event
from stream.kafka.topology import Topology
from stream.settings import StateSettings
from stream.worker.decoding import YIELD_EVERY
from stream.worker.forwarding import forwarded
from stream.worker.micro_batch import Decoded, MicroBatch, Touched
from stream.worker.states import States


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
        for number, one in enumerate(batch.decoded):
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            batch.outcomes[one.topic, self._apply(one, batch, released_at_s).value] += 1
        for key, touched in batch.touched.items():
            value = codec.encode(touched.state)
            self._states.keep(touched.partition, key, value, batch.newest_s)
        self.settle(batch)

    def request(
        self, profile_id: str, partition: int, batch: MicroBatch, *, released_at_s: float
    ) -> Outcome:
        """Have a batch publish a profile as its state is, announced if the release is newer."""
        key = profile_id.encode()
        if self._states.fetch(key) is None:
            return Outcome.STATELESS
        is_announced = self._states.kept_last_s(key) >= released_at_s
        state = self._state(key, batch)
        batch.requested[key] = Touched(profile_id, partition, state, is_announced=is_announced)
        return Outcome.UNCHANGED

    def settle(self, batch: MicroBatch) -> None:
        """Cut the live sessions of those there is something to say of; the rest is emptied."""
        for key, one in (batch.requested | batch.touched).items():
            if len(one.state.window):
                batch.scored[key] = one
            if one.profile_id in batch.erased or key not in batch.scored:
                newest_ms = batch.erased.get(one.profile_id, 0)
                batch.emptied[one.profile_id] = Erasure(one.state.erased_at_ms, newest_ms)
        windows = [one.state.window for one in batch.scored.values()]
        sessions = live_sessions(windows, self._settings.session_gap_s)
        for one, session in zip(batch.scored.values(), sessions, strict=True):
            one.session = session

    def _apply(self, one: Decoded, batch: MicroBatch, released_at_s: float) -> Outcome:
        record, profile_id = one.record, one.profile_id
        if one.topic == topics.PROFILE_REPUBLICATIONS:
            return self.request(profile_id, record.partition, batch, released_at_s=released_at_s)
        place = self._place(profile_id.encode(), record.partition)
        if place != record.partition:
            batch.rejected.append(forwarded(one.topic, record, one.broker_ms, place))
            return Outcome.FORWARDED
        if one.event is None:
            return self._erase(one, batch)
        return self._apply_event(one, one.event, batch)

    def _erase(self, one: Decoded, batch: MicroBatch) -> Outcome:
        touched = self._touch(one, batch)
        before, touched.state = touched.state, touched.state.erased(one.broker_ms)
        newest_ms = batch.erased.get(one.profile_id, 0)
        batch.erased[one.profile_id] = max(before.last_at_ms, newest_ms)
        return Outcome.UNCHANGED if touched.state is before else Outcome.APPLIED

    def _apply_event(self, one: Decoded, event: Event, batch: MicroBatch) -> Outcome:
        record, broker_ms = one.record, one.broker_ms
        if event.occurred_at_ms < broker_ms - self._settings.allowed_lateness_s * 1000:
            if event.occurred_at_ms <= self._state(one.profile_id.encode(), batch).erased_at_ms:
                return Outcome.ERASED
            batch.rejected.append(late_event(record, broker_ms, "behind_broker"))
            return Outcome.LATE
        if not carries_state(event):
            return Outcome.STATELESS
        # An unchanged profile is touched too: its last publication may have been cut short.
        state = self._touch(one, batch).state
        batch.broker_times.append(broker_ms / 1000)
        if min(event.occurred_at_ms, broker_ms) <= state.erased_at_ms:
            return Outcome.ERASED
        # Where it stands in the log that was read, whoever wrote it there and when it happened.
        at = LogPosition(round(record.timestamp * 1000), record.partition, record.offset)
        outcome = state.apply(event, self._rules, at)
        if outcome is Outcome.LATE:
            batch.rejected.append(late_event(record, broker_ms, "before_window"))
        return outcome

    def _touch(self, one: Decoded, batch: MicroBatch) -> Touched:
        key = one.profile_id.encode()
        touched = batch.touched.get(key)
        if touched is None:
            state = self._state(key, batch)
            touched = batch.touched[key] = Touched(one.profile_id, one.record.partition, state)
        return touched

    def _state(self, key: bytes, batch: MicroBatch) -> ProfileState:
        if key in batch.touched:
            return batch.touched[key].state
        data = self._states.fetch(key)
        return codec.decode(data) if data else ProfileState()
