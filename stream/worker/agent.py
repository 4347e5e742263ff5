"""What the agent does with its queue: micro-batches, side by side where whole ones wait.

Whatever has arrived is one micro-batch; the pipeline carries it to published features, and then it
is acknowledged, in offset order. What arrives meanwhile is the next batch. So batches grow with
load, and no event waits while the worker is idle.

Where a whole batch waits already nothing is gained by letting it wait: it is decoded and joined
into the sessions while the one ahead is with the model, is inferred while that is published, and
published while that is announced, so that neither the worker nor a server idles. Each step takes
batches in their order, and what is begun behind a batch that is given up is given up, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from stream.domain.intent_rows import IntentRows
from stream.domain.prediction import Intents
from stream.exceptions import ShuttingDownError
from stream.worker.micro_batch import MicroBatch, StampedRecord

_log = logging.getLogger(__name__)

_BEHIND_BEGINNING: Final = 3
"""Batches that may be with the model, the store and the features' topic while another is begun."""


class PipelineSteps(Protocol):
    """The pipeline, as far as the agent knows it."""

    async def decode(self, records: Sequence[StampedRecord]) -> MicroBatch:
        """What records say."""

    async def session(self, batch: MicroBatch) -> None:
        """Join it into the states, and save these."""

    async def infer(self, batch: MicroBatch) -> Intents | None:
        """Ask the model."""

    async def publish(self, batch: MicroBatch, intents: Intents | None) -> IntentRows | None:
        """Write what it answered to the online store."""

    async def announce(self, batch: MicroBatch, rows: IntentRows | None) -> None:
        """Tell the readers of what was written; then the records may be acknowledged."""

    async def leave(self, batch: MicroBatch) -> None:
        """Return when nothing of a batch is under way any more."""


class StreamApp(Protocol):
    """The app, as far as the agent knows it."""

    @property
    def pipeline(self) -> PipelineSteps | None:
        """Its steps; there while it runs."""

    @property
    def consumer(self) -> Any:
        """Faust's consumer."""

    @property
    def consumer_generation_id(self) -> int:
        """Counts the assignments of partitions."""

    @property
    def should_stop(self) -> bool:
        """Whether it stops."""

    @property
    def batch_max_events(self) -> int:
        """Records of a micro-batch at most."""

    async def crash(self, reason: BaseException) -> None:
        """End the process."""


@dataclass
class _Turns:
    """What batches that are under way know of each other."""

    inferring: asyncio.Lock = field(default_factory=asyncio.Lock)
    publishing: asyncio.Lock = field(default_factory=asyncio.Lock)
    announcing: asyncio.Lock = field(default_factory=asyncio.Lock)
    given_up: int | None = None
    """The generation of the consumer of which a batch was given up: what follows it in that
    generation must not be acknowledged, and the next generation gets all of it again."""

    async def give_up(self, app: StreamApp, messages: Sequence[Any], error: Exception) -> None:
        self.given_up = messages[0].generation_id
        if isinstance(error, ShuttingDownError):
            _log.warning("%s; the batch stays unacknowledged", error)
        else:
            # Faust would restart the agent and go on behind the unacknowledged batch. Ending the
            # process instead has it delivered again.
            await app.crash(error)


async def serve(app: StreamApp, queue: Any) -> None:
    """Carry what arrives on the agent's queue through the app's pipeline, until the worker stops.

    Any error but that of a worker that leaves ends the process.
    """
    turns = _Turns()
    under_way: deque[asyncio.Task[None]] = deque()
    try:
        while not app.should_stop:
            messages = await _next_batch(app, queue)
            if not messages:
                continue
            batch = await _begun(app, messages, turns)
            while len(under_way) >= _BEHIND_BEGINNING:
                await under_way.popleft()
            under_way.append(asyncio.create_task(_carry(app, messages, batch, turns)))
            if queue.qsize() < app.batch_max_events:
                await under_way[-1]
    except StopAsyncIteration:
        pass  # Faust closed the queue: the worker stops
    except asyncio.CancelledError:
        for one in under_way:
            one.cancel()
        raise
    await asyncio.gather(*under_way)


async def _next_batch(app: StreamApp, queue: Any) -> list[Any]:
    messages = [await queue.get()]
    while len(messages) < app.batch_max_events and not queue.empty():
        messages.append(queue.get_nowait())
    current = [m for m in messages if m.generation_id == app.consumer_generation_id]
    # Faust lets go of partitions only after the messages in this set are done with.
    app.consumer.unacked.update(current)
    return current


async def _begun(app: StreamApp, messages: Sequence[Any], turns: _Turns) -> MicroBatch | None:
    """The batch, with its states saved; None when the worker gave up on that."""
    assert app.pipeline is not None
    try:
        batch = await app.pipeline.decode(messages)
        await app.pipeline.session(batch)
        return batch
    except Exception as error:
        await turns.give_up(app, messages, error)
        return None


async def _carry(
    app: StreamApp,
    messages: Sequence[Any],
    batch: MicroBatch | None,
    turns: _Turns,
) -> None:
    """Take what was begun through the other steps, each behind the batch ahead; acknowledge it.

    A lock is taken in the order in which it was asked for, and nothing is awaited between two.
    """
    assert app.pipeline is not None
    try:
        if batch is None:
            return
        async with turns.inferring:
            intents = await app.pipeline.infer(batch)
        async with turns.publishing:
            if turns.given_up == messages[0].generation_id:
                return
            rows = await app.pipeline.publish(batch, intents)
        async with turns.announcing:
            if turns.given_up == messages[0].generation_id:
                return
            await app.pipeline.announce(batch, rows)
            _acknowledge(app, messages)
    except Exception as error:
        await turns.give_up(app, messages, error)
    finally:
        # Faust lets go of the partitions then: nothing may be written to them behind its back.
        if batch is not None:
            await app.pipeline.leave(batch)
        app.consumer.unacked.difference_update(messages)


def _acknowledge(app: StreamApp, messages: Sequence[Any]) -> None:
    # Faust may commit past a message that is not acknowledged when a later one is.
    for message in sorted(messages, key=lambda message: (message.tp, message.offset)):
        if message.generation_id == app.consumer_generation_id:
            message.ack(app.consumer)
