"""Faust's Kafka transport with a consumer that spends no task per message and loses none.

`faust.transport.consumer.Consumer._drain_messages` (0.15.3) delivers each message through
`wait_first(callback(message), suspend_flow.wait())`: two asyncio tasks a message, most of the time
that Faust takes. This consumer spends them on each fetch. What they are for still holds: when the
flow is suspended (a rebalance, a stop) the rest of what was fetched is left and read again from the
committed offsets.

A fetch that is under way while positions are sought takes records from behind the new positions and
drops them, as the flow is stopped: aiokafka takes the set of partitions to read from, which Faust
has emptied meanwhile, for all partitions. Of the changelog nobody would read them again, and
recovery would wait for them for ever or end without them. So seeks and fetches take turns here.

Faust takes any hole in the offsets for a gap in the log (a transaction's marker, a compacted
record) and acknowledges it, so that records lost on the way from the broker would be lost for good.
Here a hole counts as a gap once a second fetch has shown it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError
from faust.auth import Credentials, OAuthCredentials, SASLCredentials, SSLCredentials
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from mode.types import ServiceT

from stream.exceptions import InstanceIdTaken
from stream.kafka import client_options
from stream.membership import give_way
from stream.settings import Settings

_YIELD_EVERY = 100
_FETCH_S = 0.2
"""How long a fetch waits for records, and so how long it can hold up a seek.

A broker answers one request of a connection at a time, so that whatever recovery asks waits for the
fetch before it; Faust has each wait for 1.5 s where nothing arrives.
"""


def credentials(settings: Settings) -> Credentials | None:
    """What Faust's consumer, which also reads the changelog, and its producer connect with.

    Raises:
        InvalidSettings: when a certificate or key can't be read.
    """
    options = client_options(settings)
    context = options.get("ssl_context")
    if "sasl_oauth_token_provider" in options:
        return OAuthCredentials(oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context)
    if "sasl_mechanism" in options:
        return SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=context,
        )
    return SSLCredentials(context) if context else None


class LeanConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, whose fetches wait less long at the broker.

    A worker whose name another has taken crashes with `InstanceIdTaken`.
    """

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = round(_FETCH_S * 1000)
        conf = self.app.conf
        if conf.consumer_group_instance_id:
            give_way(consumer, conf.id, conf.consumer_group_instance_id, self._on_name_taken)
        return consumer

    def _on_name_taken(self, error: InstanceIdTaken) -> None:
        # A rebalance that is under way would wait for a member that is none any more.
        asyncio.run_coroutine_threadsafe(self.app.crash(error), self.parent_loop)


class LeanConsumer(driver.Consumer):
    """A Faust consumer that awaits the delivery of each message directly."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading = asyncio.Lock()
        self._doubted: dict[Any, tuple[int, int]] = {}
        self._missing: dict[Any, int] = {}

    def _new_consumer_thread(self) -> LeanConsumerThread:
        return LeanConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        """Take partitions; none is read before Faust's recovery resumes the flow.

        A worker that owned none has its flow running, and would take in events without the states
        that they belong to.
        """
        self.stop_flow()
        await super().on_partitions_assigned(assigned, generation_id)

    async def seek_wait(self, partitions: Mapping[Any, int]) -> None:
        """Seek to these offsets, while nothing is fetched."""
        async with self._reading:
            await super().seek_wait(partitions)

    async def perform_seek(self) -> None:
        """Seek all partitions to their committed offsets, while nothing is fetched or committed.

        Faust's recovery resumes the partitions, seeks, and then clears the streams' queues. Records
        delivered in between would be lost, and acknowledged as a gap in the log. So the flow stays
        stopped until Faust resumes it, after the queues are cleared.

        What counts as committed afterwards is the broker's word alone: Faust's own counts a commit
        that failed because the group rebalanced. Where nothing is committed aiokafka leaves the
        position where it is, behind records that were dropped; those partitions begin anew.
        """
        self.stop_flow()
        async with self._reading:
            await self.maybe_wait_for_commit_to_finish()
            committed = {
                ensure_TP(tp): offset or None
                for tp, offset in (await self.seek_to_committed()).items()
            }
            self._committed_offset.update(committed)
            self._read_offset.update(committed)
            without_commit = [
                tp
                for tp, offset in committed.items()
                if offset is None and self.app.topics.acks_enabled_for(tp.topic)
            ]
            if without_commit:
                await super().seek_wait(await self.earliest_offsets(*without_commit))

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        stopped: Any = fetcher
        try:
            while not (self._stopped.is_set() or stopped._stopped.is_set()):
                # A fetch may return at once again and again; others need the loop too.
                await self.sleep(0)
                if not self.flow_active:
                    await self.wait(self.can_resume_flow.wait())
                if self.should_stop:
                    continue
                async with self._reading:
                    fetched = await self._fetched()
                    if fetched and self.flow_active:
                        await self.wait_first(self._deliver_all(fetched), self.suspend_flow.wait())
                        await self._go_back()
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _fetched(self) -> Any:
        # A set of its own: Faust changes the one that it keeps at any time.
        active = set(self._get_active_partitions())
        if not active:
            await self.sleep(_FETCH_S)
            return None
        return await self._getmany(active_partitions=active, timeout=_FETCH_S)

    async def _deliver_all(self, fetched: Any) -> None:
        for number, (tp, record) in enumerate(self.scheduler.iterate(fetched), start=1):
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            await self._deliver(tp, self._to_message(tp, record))

    async def _deliver(self, tp: Any, message: Any) -> None:
        # Faust means the offset to be read next after a seek and the one read last after a
        # delivery; here it is always the next.
        offset, following = message.offset, self._read_offset[tp]
        if following is not None and offset < following:
            return
        if following and offset > following and self.app.topics.acks_enabled_for(message.topic):
            if not self._is_gap(tp, following, offset):
                return
            await self._add_gap(tp, following, offset - 1)
        await self.callback(message)
        self._read_offset[tp] = offset + 1

    def _is_gap(self, tp: Any, following: int, offset: int) -> bool:
        """Whether a second fetch has shown that nothing lies from `following` to `offset`."""
        doubted = self._doubted.get(tp)
        if doubted == (following, offset):
            del self._doubted[tp]
            return True
        behind_the_hole = doubted is not None and doubted[0] == following and offset > doubted[1]
        if not behind_the_hole:
            self._doubted[tp] = (following, offset)
            self._missing[tp] = following
        return False

    async def _go_back(self) -> None:
        """Have fetched once more what was missing in what was delivered."""
        missing, self._missing = self._missing, {}
        if missing and self.flow_active:
            try:
                await super().seek_wait(missing)
            except IllegalStateError:
                self.log.info("The group rebalances: %s will be read again", sorted(missing))


class LeanTransport(driver.Transport):
    """Faust's aiokafka transport with the lean consumer."""

    Consumer = LeanConsumer
