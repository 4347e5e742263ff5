"""The worker's steps by its own pure functions, without anything that it promises.

No dead letters, no late events, no announcements, no changelog, and no fence of partitions.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from stream.domain.batch_states import BatchStates
from stream.domain.catalogue import read_catalogue
from stream.domain.events import decode_quickly
from stream.domain.interactions import carries_state, interactions_of
from stream.domain.row_building import intent_rows
from stream.domain.rules import Rules
from stream.domain.sessions import live_sessions
from stream.domain.taking_in import EVENT
from stream.domain.topics import BROWSE_EVENTS, EVENT_TOPICS
from stream.domain.window import windows_of
from stream.inference.client import InferenceClient
from stream.kafka.changelog import Changelog

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from typing import Any

    from stream.domain.intent_rows import IntentRows
    from stream.domain.quick_events import EventFields
    from stream.settings import Settings

_NOWHERE: Final = (-1, -1, -1)
"""Where a record stands, which is kept by those alone who read records twice."""


class Taken(NamedTuple):
    """A consumed record."""

    topic: str
    key: bytes
    value: bytes
    at_ms: int
    """The broker's time, Unix milliseconds."""


class Steps:
    """From records to rows; made where the event loop runs.

    Args:
        settings: the worker's.
        states: encoded, by profile; kept up to date.
    """

    def __init__(self, settings: Settings, states: MutableMapping[Any, bytes]) -> None:
        self._settings = settings
        self._states = states
        self._topic = {settings.topic(name): name for name in EVENT_TOPICS}
        self._catalogue = read_catalogue(settings.catalogue)
        self._rules = Rules(settings.window_length)
        self._inference = InferenceClient(settings)

    async def rows(self, records: Sequence[Taken]) -> IntentRows | None:
        """The features of all profiles that the records touch; None where they touch none."""
        told = [(record, self._event(record)) for record in records]
        events = [(record, event) for record, event in told if carries_state(event)]
        row_of = {key: row for row, key in enumerate(dict.fromkeys(one.key for one, _ in events))}
        keys = [*row_of]
        states = BatchStates.decoded([self._states.get(key) for key in keys], self._rules)
        states.take_in(
            np.array(
                [
                    (
                        row_of[record.key],
                        event.occurred_at_ms,
                        record.at_ms,
                        *_NOWHERE,
                        self._topic[record.topic] == BROWSE_EVENTS,
                        True,
                    )
                    for record, event in events
                ],
                EVENT,
            ),
            interactions_of(event for _, event in events),
            [event.event_id for _, event in events],
            self._rules,
            self._settings.allowed_lateness_s * 1000,
        )
        touched = states.touched()
        if not len(touched):
            return None
        for row, state in zip(touched.tolist(), states.encoded(touched), strict=True):
            self._states[keys[row]] = state
        states = states.take(touched)
        names = [keys[row].decode() for row in touched.tolist()]
        return intent_rows(
            names,
            states,
            live_sessions(states, self._settings.session_gap_s),
            await self._inference.infer(windows_of(names, states, self._rules)),
            self._catalogue,
            now_ms=round(time() * 1000),
        )

    def _event(self, record: Taken) -> EventFields:
        return decode_quickly(
            self._topic[record.topic],
            record.key,
            record.value,
            broker_time_ms=record.at_ms,
            max_ahead_s=self._settings.max_ahead_s,
            max_bytes=self._settings.max_event_bytes,
        )


async def kept_states(settings: Settings) -> dict[bytes, bytes]:
    """The states that a benchmark wrote to the changelog before."""
    async with Changelog.of(settings) as changelog:
        return {record.key: record.value async for record in changelog.read()}
