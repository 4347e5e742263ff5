"""The worker's steps in Faust agents as one writes them by its documentation, to compare with.

    faust -A lab.bench.plain_agent:one_by_one worker
    faust -A lab.bench.plain_agent:in_batches worker

What is done with events is `lab.bench.plain_steps`, the worker's own functions; consumer, table and
online store are Faust's and Feast's. `one_by_one` takes an event through all steps before the next,
its state in a table; `in_batches` takes what has come in 50 ms, up to 64 events, with one request
and one write for all, its state in a dictionary, because tables can't be written there: when it
ends, the state is lost.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

import faust
from yarl import URL

from features import definitions
from features.online.feast_rows import to_protos
from lab.bench.plain_steps import Steps, Taken, kept_states
from lab.bench.publish import feast_store
from stream.domain import topics
from stream.settings import settings

BATCH: Final = 64
WITHIN_S: Final = 0.05


class ToFeast:
    """From records to the online store; made where the event loop runs."""

    def __init__(self, states: MutableMapping[Any, bytes]) -> None:
        config = settings()
        self._steps = Steps(config, states)
        registry = config.feature_registry
        assert registry is not None
        self._store = feast_store(config, registry.with_name("plain.db"))
        self._view = self._store.get_feature_view(definitions.profile_intent.name)

    async def take(self, events: list[Any]) -> None:
        """Take events to features, each profile's newest state once."""
        messages = [event.message for event in events]
        rows = await self._steps.rows(
            [Taken(one.topic, one.key, one.value, round(one.timestamp * 1000)) for one in messages]
        )
        if rows is not None:
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
    names = map(config.topic, topics.EVENT_TOPICS)
    return app, app.topic(*names, key_type=bytes, value_type=bytes)


one_by_one, _events = _app("plain-one-by-one")
_states = one_by_one.Table(f"{one_by_one.conf.id}-states", key_type=bytes, value_type=bytes)
CHANGELOG: Final = f"{one_by_one.conf.id}-{_states.name}-changelog"
"""Of the table, as Faust names it."""


@one_by_one.agent(_events)
async def _one_by_one(stream: Any) -> None:
    store = ToFeast(_states)
    async for event in stream.events():
        await store.take([event])


in_batches, _batched_events = _app("plain-in-batches")


@in_batches.agent(_batched_events)
async def _in_batches(stream: Any) -> None:
    store = ToFeast(await kept_states(settings()))
    async for events in stream.noack_take(BATCH, within=WITHIN_S):
        await store.take(events)
        for event in events:
            event.ack()
