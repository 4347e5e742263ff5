"""Faust's Kafka transport with a consumer that spends no task per message.

`faust.transport.consumer.Consumer._drain_messages` (0.15.3) delivers each message through
`wait_first(callback(message), suspend_flow.wait())`: two asyncio tasks a message, most of the time
that Faust takes. This consumer awaits the callback itself. What the tasks were for still holds: the
callback first waits for flow control, and when the flow is suspended meanwhile (a rebalance, a
stop) the rest of what was fetched is left: it is read again from the committed offsets.

Faust takes any hole in the offsets for a gap in the log (a transaction's marker, a compacted
record) and acknowledges it, so that records lost on the way from the broker would be lost for good.
Here a hole counts as a gap once a second fetch has shown it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from faust.auth import Credentials, SASLCredentials, SSLCredentials
from faust.transport.drivers import aiokafka as driver
from mode.types import ServiceT

from stream.kafka import client_options
from stream.settings import Settings

_YIELD_EVERY = 100


def credentials(settings: Settings) -> Credentials | None:
    """What Faust's consumer, which also reads the changelog, and its producer connect with.

    Raises:
        InvalidSettings: when a certificate or key can't be read.
    """
    options = client_options(settings)
    context = options.get("ssl_context")
    if "sasl_mechanism" in options:
        return SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=context,
        )
    return SSLCredentials(context) if context else None


class LeanConsumer(driver.Consumer):
    """A Faust consumer that awaits the delivery of each message directly."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._delivering = asyncio.Lock()
        self._doubted: dict[Any, tuple[int, int]] = {}

    async def perform_seek(self) -> None:
        """Seek all partitions to their committed offsets, with nothing being delivered meanwhile.

        Faust's recovery resumes the partitions, seeks, and then clears the streams' queues. Records
        delivered in between would be lost, and acknowledged as a gap in the log. So the flow stays
        stopped until Faust resumes it, after the queues are cleared. What a fetch under way then
        brings is good: it was read from the offsets sought.

        Where nothing is committed aiokafka leaves the position where it is, behind records that
        were fetched and are dropped here; those partitions begin anew.
        """
        self.stop_flow()
        await self.wait_for_stopped_flow()
        async with self._delivering:
            await super().perform_seek()
            without_commit = [
                tp
                for tp in self.assignment()
                if not self._committed_offset[tp] and self.app.topics.acks_enabled_for(tp.topic)
            ]
            if without_commit:
                await self.seek_wait(await self.earliest_offsets(*without_commit))

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        stopped: Any = fetcher
        delivered = 0
        try:
            while not (self._stopped.is_set() or stopped._stopped.is_set()):
                # `getmany` may return at once again and again; others need the loop too.
                await self.sleep(0)
                if self.should_stop:
                    continue
                async for tp, message in self.getmany(timeout=1.0):
                    delivered += 1
                    if delivered % _YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                    async with self._delivering:
                        if self.suspend_flow.is_set():
                            break
                        await self._deliver(tp, message)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _deliver(self, tp: Any, message: Any) -> None:
        offset, read = message.offset, self._read_offset[tp]
        if read is not None and offset < read:
            return
        if read and offset - read > 1 and self.app.topics.acks_enabled_for(message.topic):
            if not await self._shown_twice(tp, read, offset):
                return
            # Faust's own calls include `offset`, which is yet to be processed.
            await self._add_gap(tp, read + 1, offset - 1)
        await self.callback(message)
        self._read_offset[tp] = offset

    async def _shown_twice(self, tp: Any, read: int, offset: int) -> bool:
        """Whether nothing lies between `read` and `offset`; if that is new, fetch them again."""
        doubted = self._doubted.get(tp)
        if doubted == (read, offset):
            del self._doubted[tp]
            return True
        what_follows_the_hole = doubted is not None and doubted[0] == read and offset > doubted[1]
        if not what_follows_the_hole:
            self._doubted[tp] = (read, offset)
            await self.seek_wait({tp: read})
        return False


class LeanTransport(driver.Transport):
    """Faust's aiokafka transport with the lean consumer."""

    Consumer = LeanConsumer
