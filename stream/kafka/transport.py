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
Here a hole counts as a gap once a second fetch has shown it. That goes for the end of a log, too:
where only markers or aborted records remain no later record is going to acknowledge the gap, so it
is acknowledged as soon as all before it is.

Commits are bookmarks (see `bookmark`). Before anything is read they are checked against the log:
of one that isn't that of the bookmark all is read that was not read yet. Where a log is exchanged
while it is read, and it shows (an offset comes that is below those that came before), the worker
ends, and the restarted one checks its bookmarks as said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError
from faust import Schema
from faust.auth import Credentials, OAuthCredentials, SASLCredentials, SSLCredentials
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from mode.types import ServiceT

from stream import metrics
from stream.exceptions import InstanceIdTakenError, LogReplacedError
from stream.kafka.bookmark import LOG_APPEND_TIME, Bookmark, behind_markers, replaced
from stream.kafka.connection import client_options
from stream.kafka.consumer import ISOLATION
from stream.kafka.membership import give_way
from stream.kafka.salvage import Fetched, fetched, positions
from stream.settings import KafkaSettings

_YIELD_EVERY = 100
_FETCH_S = 0.2
"""How long a fetch waits for records, and so how long it can hold up a seek.

A broker answers one request of a connection at a time, so that whatever recovery asks waits for the
fetch before it; Faust has each wait for 1.5 s where nothing arrives.
"""


def credentials(settings: KafkaSettings) -> Credentials | None:
    """What Faust's consumer, which also reads the changelog, and its producer connect with.

    Raises:
        InvalidSettingsError: when a certificate or key can't be read.
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
    """Faust's consumer thread, with a consumer that reads as `stream.kafka.consumer` does.

    It waits less long at the broker, and a worker whose name another has taken crashes with
    `InstanceIdTakenError`.
    """

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = round(_FETCH_S * 1000)
        # Faust reads what was committed only where it is to write in transactions as well.
        consumer._isolation_level = ISOLATION
        conf = self.app.conf
        if conf.consumer_group_instance_id:
            give_way(consumer, conf.id, conf.consumer_group_instance_id, self._on_name_taken)
        return consumer

    def _on_name_taken(self, error: InstanceIdTakenError) -> None:
        # A rebalance that is under way would wait for a member that is none any more.
        asyncio.run_coroutine_threadsafe(self.app.crash(error), self.parent_loop)

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: Any,
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> Fetched:
        if not self.consumer.flow_active:
            return {}
        if consumer._closed or consumer._fetcher._closed:
            raise ConsumerStoppedError
        with consumer._subscription.fetch_context():
            return await fetched(consumer, active_partitions, timeout or 0, max_records)

    def positions(self) -> dict[Any, int]:
        """The offset that each partition is fetched from next, as far as it is known."""
        return {ensure_TP(tp): at for tp, at in positions(self._ensure_consumer()).items()}

    async def bookmarks(self) -> dict[Any, Bookmark]:
        """Where the group is, in each assigned partition that it has committed an offset of."""
        consumer = self._ensure_consumer()
        committed = await self.call_thread(
            consumer._coordinator.fetch_committed_offsets, consumer.assignment()
        )
        return {ensure_TP(tp): Bookmark.of(entry) for tp, entry in committed.items()}

    async def replaced(self, bookmarks: Mapping[Any, Bookmark]) -> dict[Any, int]:
        """Partitions whose log isn't that of the bookmark, and the offset to go on at."""
        found = await self.call_thread(replaced, self._ensure_consumer(), bookmarks)
        return {ensure_TP(tp): offset for tp, offset in found.items()}

    async def _commit(self, offsets: Mapping[Any, int]) -> bool:
        consumer, owner = self._ensure_consumer(), cast(LeanConsumer, self.consumer)
        owned = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
        self.tp_last_committed_at.update(dict.fromkeys(owned, monotonic()))
        marks = {tp: Bookmark(offset, owner.read_to_ms.get(tp)) for tp, offset in owned.items()}
        try:
            for tp in marks.keys() & owner.behind_markers:
                marks[tp] = mark = await behind_markers(consumer, tp, marks[tp])
                if mark.read_to_ms is not None:
                    self.parent_loop.call_soon_threadsafe(owner.read_up_to, tp, mark.read_to_ms)
            await consumer.commit({TopicPartition(*tp): at.to_commit() for tp, at in marks.items()})
            owner.behind_markers -= marks.keys()
        except CommitFailedError:
            return False  # the group rebalanced
        except Exception as error:
            self.log.exception("%s can't be committed: %r", owned, error)
            await self.crash(error)
            return False
        return True


class MessageSchema(Schema[Any, Any]):
    """Hands messages on as they are: the agent reads their bytes itself, a batch at a time."""

    def compile(self, *_: Any, **__: Any) -> Callable[..., Awaitable[Any]]:
        """What stands for decoding."""
        return _as_it_is


async def _as_it_is(message: Any, *, propagate: bool = False) -> Any:
    del propagate
    return message


class LeanConsumer(driver.Consumer):
    """A Faust consumer that awaits the delivery of each message directly."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading = asyncio.Lock()
        self._doubted: dict[Any, tuple[int, int]] = {}
        self._doubted_ends: dict[Any, tuple[int, int]] = {}
        self._missing: dict[Any, int] = {}
        self._starts: dict[Any, int] = {}
        self.read_to_ms: dict[Any, int] = {}
        """Broker time, by partition, of the newest record that is acknowledged."""
        self.behind_markers: set[Any] = set()
        """Partitions whose next commit lies right behind what is no record."""

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Say nothing: Faust calls a worker hung that waits for a transaction. See `watchdog`."""

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
            thread = cast(LeanConsumerThread, self._thread)
            marks = await thread.bookmarks()
            replaced = await thread.replaced(marks)
            self._tell_replaced(marks, replaced)
            offsets = {tp: replaced.get(tp, mark.offset) or None for tp, mark in marks.items()}
            self.read_to_ms = {
                tp: mark.read_to_ms for tp, mark in marks.items() if mark.read_to_ms is not None
            }
            assigned = self.assignment()
            self._committed_offset.update({tp: offsets.get(tp) for tp in assigned})
            self._read_offset.update({tp: offsets.get(tp) for tp in assigned})
            acknowledged = [tp for tp in assigned if self.app.topics.acks_enabled_for(tp.topic)]
            without_commit = [tp for tp in acknowledged if offsets.get(tp) is None]
            self._starts = dict(await self.earliest_offsets(*without_commit))
            await super().seek_wait(
                {tp: offsets.get(tp) or self._starts[tp] for tp in acknowledged}
            )

    def _tell_replaced(self, marks: Mapping[Any, Bookmark], replaced: Mapping[Any, int]) -> None:
        for tp, offset in replaced.items():
            metrics.LOG_RESETS.labels(tp.topic, str(tp.partition)).inc()
            self.log.error(
                "%s[%d] is another log than the one that was read up to offset %d: it was made "
                "anew, restored or cut short. It is read from offset %d",
                *(tp.topic, tp.partition, marks[tp].offset, offset),
            )

    def ack(self, message: Any) -> bool:
        """Take a message for done, and remember its broker time for the next bookmark."""
        if message.timestamp_type == LOG_APPEND_TIME:
            self.read_up_to(message.tp, round(message.timestamp * 1000))
        return bool(super().ack(message))

    def read_up_to(self, tp: Any, time_ms: int) -> None:
        """Take in a broker time up to which a partition is done; an older one changes nothing.

        A commit that is under way learns of a marker's time when later records may be done already.
        """
        self.read_to_ms[tp] = max(time_ms, self.read_to_ms.get(tp, time_ms))

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
                    records = await self._fetched()
                    if records and self.flow_active:
                        await self.wait_first(self._deliver_all(records), self.suspend_flow.wait())
                    if self.flow_active:
                        self._look_behind()
                        await self._go_back()
        except LogReplacedError as error:
            self.stop_flow()
            await self.app.crash(error)
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
            if self.app.topics.acks_enabled_for(message.topic):
                raise LogReplacedError(
                    f"{tp.topic}[{tp.partition}] was exchanged while it was read: offset {offset} "
                    f"came after {following - 1}; start the worker again, and it reads the new log"
                )
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

    def _look_behind(self) -> None:
        """Take for a gap what a second fetch found no record in either, up to the log's end."""
        active = self._get_active_partitions()
        for tp, position in cast(LeanConsumerThread, self._thread).positions().items():
            following = self._read_offset[tp] or self._starts.get(tp, 0)
            if position <= following or tp in self._missing or tp not in active:
                continue
            doubted = self._doubted_ends.get(tp)
            if doubted is None or doubted[0] != following:
                self._doubted_ends[tp] = following, position
                self._missing[tp] = following
            elif position >= doubted[1]:
                self._pass(tp, *doubted)

    def _pass(self, tp: Any, following: int, end: int) -> None:
        """Have it acknowledged that no record lies from `following` to before `end`."""
        if self.app.topics.acks_enabled_for(tp.topic):
            self._gap[tp].addi(following, end)
            self._acked[tp]  # Faust commits partitions that it has an entry of
        elif self._recovered(tp) >= following - 1:
            cast(Any, self.app.tables).recovery.active_offsets[tp] = end - 1
        else:
            return  # records that were delivered before aren't taken in yet
        self._read_offset[tp] = end

    def _recovered(self, tp: Any) -> int:
        """The offset of the changelog's record that recovery took in last."""
        offset: int | None = cast(Any, self.app.tables).recovery.active_offsets.get(tp)
        return -1 if offset is None else offset

    def _new_offset(self, tp: Any) -> int | None:
        acknowledged = super()._new_offset(tp)
        reached = self._committed_offset[tp] if acknowledged is None else acknowledged
        behind = self._gap[tp][self._starts.get(tp, 0) if reached is None else reached]
        if not behind:
            return acknowledged
        end: int = max(gap.end for gap in behind)
        self._gap[tp].chop(0, end)
        self.behind_markers.add(tp)
        return end

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
