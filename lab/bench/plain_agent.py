"""The worker's steps in Faust agents as one writes them by its documentation, to compare with.

    faust -A lab.bench.plain_agent:one_by_one worker
    faust -A lab.bench.plain_agent:in_batches worker

Decoding, session state, windows, model and rows are the worker's own. Consumer, table and online
store are Faust's and Feast's. `one_by_one` takes an event through all steps before the next, its
state in a table; `in_batches` takes what has come in 50 ms, up to 64 events, with one request and
one write for all, its state in a dictionary, because tables can't be written there: when it ends,
the state is lost. Neither has dead letters, late events, announcements or a fence.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from time import time
from typing import Any, Final

import faust
from yarl import URL

from features import definitions
from features.online.feast_rows import to_protos
from lab.bench.publish import feast_store
from stream.domain import codec, topics
from stream.domain.batch_states import BatchStates
from stream.domain.catalogue import read_catalogue
from stream.domain.events import decode
from stream.domain.profile_state import ProfileState
from stream.domain.row_building import intent_rows
from stream.domain.rules import Rules
from stream.domain.sessions import live_sessions
from stream.domain.window import windows_of
from stream.inference.client import InferenceClient
from stream.settings import settings

BATCH: Final = 64
WITHIN_S: Final = 0.05


class Steps:
    """From records to the online store; made where the event loop runs."""

    def __init__(self, states: MutableMapping[Any, bytes]) -> None:
        self._states = states
        self._settings = settings()
        self._catalogue = read_catalogue(self._settings.catalogue)
        self._rules = Rules(self._settings.window_length)
        self._inference = InferenceClient(self._settings)
        registry = self._settings.feature_registry
        assert registry is not None
        self._store = feast_store(self._settings, registry.with_name("plain.db"))
        self._view = self._store.get_feature_view(definitions.profile_intent.name)

    async def take(self, records: list[Any]) -> None:
        """Take records to features, each profile's newest state once."""
        touched: dict[bytes, ProfileState] = {}
        for record in records:
            key = record.message.key
            data = self._states.get(key)
            state = touched.get(key) or (codec.decode(data) if data else ProfileState())
            event = decode(
                topics.BROWSE_EVENTS,
                key,
                record.message.value,
                broker_time_ms=round(record.message.timestamp * 1000),
                headers=(),
                max_ahead_s=self._settings.max_ahead_s,
                max_bytes=self._settings.max_event_bytes,
            )
            state.apply(event, self._rules)
            touched[key] = state
        for key, state in touched.items():
            self._states[key] = codec.encode(state)
        names = [key.decode() for key in touched]
        states = BatchStates.of(touched.values())
        rows = intent_rows(
            names,
            states,
            live_sessions(states, self._settings.session_gap_s),
            await self._inference.infer(windows_of(names, states, self._rules)),
            self._catalogue,
            now_ms=round(time() * 1000),
        )
        await self._store.provider.online_write_batch_async(
            self._store.config, self._view, list(map(to_protos, rows)), None
        )


def _app(name: str) -> tuple[faust.App, Any]:
    config = settings()
    app = faust.App(
        name,
        broker=[URL(f"aiokafka://{address}") for address in config.kafka_bootstrap.split(",")],
        store="memory://",
        datadir=str(config.data_dir / name),
        autodiscover=False,
        origin="lab.bench",
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=config.commit_interval_s,
        key_serializer="raw",
        value_serializer="raw",
        topic_partitions=config.topic_partitions,
    )
    return app, app.topic(config.topic(topics.BROWSE_EVENTS), key_type=bytes, value_type=bytes)


one_by_one, _events = _app("plain-one-by-one")
_states = one_by_one.Table(f"{one_by_one.conf.id}-states", key_type=bytes, value_type=bytes)


@one_by_one.agent(_events)
async def _one_by_one(stream: Any) -> None:
    steps = Steps(_states)
    async for record in stream.events():
        await steps.take([record])


in_batches, _batched_events = _app("plain-in-batches")


@in_batches.agent(_batched_events)
async def _in_batches(stream: Any) -> None:
    steps = Steps({})
    async for records in stream.noack_take(BATCH, within=WITHIN_S):
        await steps.take(records)
        for record in records:
            record.ack()
