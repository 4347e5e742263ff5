"""The Faust app: `faust -A stream.worker.app worker` or `intentstream worker`.

One agent reads the event topics and that of erasures; `stream.worker.agent` says how.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack
from typing import Any, cast

import faust
from faust.exceptions import ConsumerNotStarted
from faust.types import TP
from yarl import URL

from features.online.inspection import inspector_of
from features.online.writer import IntentWriter
from stream import metrics, traces
from stream.domain import topics
from stream.domain.catalogue import Catalogue, read_catalogue
from stream.domain.version_labels import VersionLabels
from stream.exceptions import ChangelogLostError, PartitionsChangedError
from stream.inference.client import InferenceClient
from stream.inference.release import ReleaseFollower
from stream.inference.serving import ReleasedInference
from stream.inference.shadow import Shadow
from stream.inference.version_catalogue import catalogue_of
from stream.kafka.consumer import METADATA_MAX_AGE_S
from stream.kafka.lag import PartitionLag
from stream.kafka.outbox import Outbox
from stream.kafka.preflight import check_topics
from stream.kafka.topology import TopologyReader, TopologyWatch, settle_topology
from stream.kafka.transport import LeanTransport, MessageSchema, credentials
from stream.logs import logging_config, throttle_clients
from stream.plain_text import log_plainly
from stream.settings import Settings, settings
from stream.worker.agent import serve
from stream.worker.healing import Healer
from stream.worker.health import HealthServer
from stream.worker.pipeline import Pipeline
from stream.worker.table import SessionTable
from stream.worker.warming import warm_up
from stream.worker.watchdog import Watchdog

_QUEUE_BATCHES = 4
"""How many full micro-batches may wait in memory before fetching pauses."""

_LONGEST_OUTAGE_S = 7 * 86_400
"""How long a worker may fetch nothing, as one does that a dead dependency holds, its queue full.

aiokafka has a consumer that fetches nothing for longer leave its group. It would never come back:
its flow is stopped, so that it fetches nothing. A worker that hangs is the watchdog's business.
"""


class IntentApp(faust.App):
    """The Faust app with the worker's own edges: started before it, stopped after it.

    `worker_settings` are the product's settings; `pipeline` exists while the app runs, and `healer`
    where the online store is Redis.
    """

    worker_settings: Settings
    catalogue: Catalogue
    table: SessionTable
    watchdog: Watchdog
    pipeline: Pipeline | None = None
    writer: IntentWriter
    healer: Healer | None = None
    pipeline_type: type[Pipeline] = Pipeline

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._edges = AsyncExitStack()

    async def on_first_start(self) -> None:
        """Make the folder of data, with those above it."""
        self.worker_settings.data_dir.mkdir(parents=True, exist_ok=True)
        await super().on_first_start()

    async def on_start(self) -> None:
        """Open the edges and build the pipeline."""
        throttle_clients()
        warming = asyncio.create_task(asyncio.to_thread(warm_up))
        config, catalogue = self.worker_settings, self.catalogue
        topology = await settle_topology(config, await check_topics(config))
        self.table.place = topology.place()
        topologies = await self._edges.enter_async_context(TopologyReader(config))
        self._topology = TopologyWatch(config, topologies, topology)
        writer = self.writer = IntentWriter(config)
        await writer.start()
        self._edges.push_async_callback(writer.close)
        metrics.STORE_FENCED.set(writer.is_fenced)
        if writer.is_fenced:
            metrics.STALE.labels(config.online_store)
        outbox = await self._edges.enter_async_context(Outbox(config))
        releases = await self._edges.enter_async_context(
            ReleaseFollower(config, before_live=self._learn_titles)
        )

        def labels_of(version: str) -> VersionLabels:
            return releases.current.labels_of(version)

        inference, comparing = [
            await self._edges.enter_async_context(InferenceClient(config, labels_of=labels_of))
            for _ in range(2)
        ]
        shadow = await self._edges.enter_async_context(
            Shadow(comparing, outbox, most=config.inference_batch)
        )
        pipeline_type = self.pipeline_type
        if traces.start("intentstream-worker"):
            from stream.worker.tracing import traced

            pipeline_type = traced(pipeline_type)
            self._edges.push_async_callback(traces.flush)
        self.pipeline = pipeline_type(
            config,
            catalogue,
            states=self.table,
            outbox=outbox,
            inference=ReleasedInference(inference, shadow, lambda: releases.current),
            store=writer,
            gives_up=self.is_leaving,
            released_at_s=lambda: releases.since_s,
            labels_of=labels_of,
            topology=topology,
        )
        watchdog = self.watchdog = Watchdog(config, self)
        if inspector := inspector_of(config):
            self._edges.push_async_callback(inspector.close)
            self.healer = Healer(
                config,
                states=self.table,
                store=inspector,
                pipeline=self.pipeline,
                live=lambda: "" if config.model_version else releases.current.live,
                owned=self.settled_partitions,
            )
            await self.add_runtime_dependency(self.healer)
        else:
            self.log.warning(
                "What online store %s loses is not noticed, as only Redis is watched; "
                "`intentstream republish` publishes all again",
                config.online_store,
            )
        await self.add_runtime_dependency(watchdog)
        await self.add_runtime_dependency(self._topology)
        health = HealthServer(config, is_ready=self.is_ready, is_alive=watchdog.is_alive)
        await self._edges.enter_async_context(health)
        await warming
        await super().on_start()
        # What is imported by now lives as long as the worker, and to look through it for garbage
        # takes 200 ms, once a minute, in which no event moves.
        gc.collect()
        gc.freeze()

    async def _learn_titles(self, version: str) -> None:
        """Know the titles of the version that is to be live, unless INTENT_CATALOGUE tells them."""
        if self.worker_settings.catalogue is None:
            carried = await asyncio.to_thread(catalogue_of, self.worker_settings, version)
            # In place, as states and pipeline have it. What left a window is remembered with the
            # share that the durations of then gave; a join keeps the larger, so nothing is lost.
            self.catalogue.take(carried)

    async def on_stop(self) -> None:
        """Let Faust finish and commit what is in flight, then close the edges."""
        await super().on_stop()
        await self._edges.aclose()

    async def _on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        try:
            await self._topology.insist()
        except (PartitionsChangedError, ChangelogLostError) as error:
            await self.crash(error)
            return
        await super()._on_partitions_assigned(assigned, generation_id)

    @property
    def batch_max_events(self) -> int:
        """Records of a micro-batch at most."""
        return self.worker_settings.batch_max_events

    def is_leaving(self) -> bool:
        """Whether the worker stops or loses its partitions: the time to give up retrying."""
        return self.should_stop or not self.flow_control.is_active()

    def is_held(self) -> bool:
        """Whether a dependency is down and the worker holds its batch until it is back."""
        return self.pipeline is not None and self.pipeline.waits_for is not None

    def owned(self) -> set[tuple[str, int]]:
        """Topic and partition of all that the worker consumes."""
        try:
            return {(tp.topic, tp.partition) for tp in self.consumer.assignment()}
        except ConsumerNotStarted:
            return set()

    def settled_partitions(self) -> set[int]:
        """The partitions that the worker consumes; none while it doesn't get on with them."""
        return {partition for _, partition in self.owned()} if self._gets_on() else set()

    def committed(self, topic: str, partition: int) -> int | None:
        """The offset that the worker takes for committed; None before its first commit."""
        if (topic, partition) not in self.owned():
            return None
        offset: int | None = cast(Any, self.consumer)._committed_offset[TP(topic, partition)]
        return offset

    def recovering(self) -> list[PartitionLag] | None:
        """How far the worker is with each changelog, while it reads states back; else None."""
        if not self.in_recovery:
            return None
        recovery = cast(Any, self.tables).recovery
        return [
            PartitionLag(
                self.worker_settings.consumer_group,
                tp.topic,
                tp.partition,
                start=0,
                committed=recovery.active_offsets[tp],
                end=end,
            )
            for tp, end in recovery.active_highwaters.items()
        ]

    def is_ready(self) -> bool:
        """Whether the worker has its partitions and topics, and no dependency holds it up.

        Also whether who reads by Feast finds the definitions; events don't wait for that.
        """
        return (
            self._gets_on()
            and (self.healer is None or self.healer.store_answers)
            and self.writer.is_registered
        )

    def _gets_on(self) -> bool:
        return (
            self.pipeline is not None
            and self.watchdog.kafka.is_up
            and not self.is_held()
            and not self.watchdog.missing
            and self.flow_control.is_active()
            and not self.in_recovery
            and not self.rebalancing
        )


def create_app(config: Settings) -> IntentApp:
    """The app of these settings, with its table and its agent."""
    app = IntentApp(
        config.consumer_group,
        broker=[URL(f"aiokafka://{address}") for address in config.kafka_bootstrap.split(",")],
        broker_credentials=credentials(config),
        store="memory://",
        datadir=str(config.data_dir),
        autodiscover=False,
        origin="stream",
        key_serializer="raw",
        value_serializer="raw",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=round(METADATA_MAX_AGE_S * 1000),
        consumer_group_instance_id=config.instance_id,
        broker_commit_interval=config.commit_interval_s,
        broker_session_timeout=config.session_timeout_s,
        broker_heartbeat_interval=config.session_timeout_s / 4,
        broker_max_poll_interval=_LONGEST_OUTAGE_S,
        producer_request_timeout=30.0,
        stream_buffer_maxsize=config.batch_max_events * _QUEUE_BATCHES,
        # What people read has Faust's own colours.
        logging_config=logging_config(config) if config.log_format == "json" else None,
    )
    app.worker_settings = config
    app.transport = LeanTransport(app.conf.broker_consumer, app)
    app.catalogue = read_catalogue(config.catalogue)
    app.table = SessionTable.of(app, config, app.catalogue.durations)
    events = app.topic(
        *(config.topic(name) for name in topics.CONSUMED_TOPICS),
        schema=MessageSchema(key_serializer="raw", value_serializer="raw", allow_empty=True),
    )

    @app.agent(events, name="intents")
    async def intents(stream: Any) -> None:
        await serve(app, stream.channel.queue)

    return app


log_plainly()
app = create_app(settings())
