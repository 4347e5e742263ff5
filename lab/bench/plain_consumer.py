"""The worker's steps behind a plain consumer of `aiokafka`: what there is to gain without a worker.

    python -m lab.bench.plain_consumer

Takes what there is, up to as many events as a worker's batch, through `lab.bench.plain_steps` and
the worker's writer to the online store, then commits. States are in a dictionary: when it ends,
they are lost.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiokafka import AIOKafkaConsumer

from features.online.writer import IntentWriter
from lab.bench.plain_steps import Steps, Taken, kept_states
from stream.domain.topics import EVENT_TOPICS
from stream.kafka.connection import client_options
from stream.settings import settings

GROUP: Final = "plain-consumer"

_WAIT_MS: Final = 50


async def work() -> None:
    """Work off whatever comes."""
    config = settings()
    writer = IntentWriter(config)
    await writer.start()
    steps = Steps(config, await kept_states(config))
    consumer = AIOKafkaConsumer(
        *map(config.topic, EVENT_TOPICS),
        **client_options(config),
        group_id=GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    async with consumer:
        while True:
            found = await consumer.getmany(timeout_ms=_WAIT_MS, max_records=config.batch_max_events)
            records = [
                Taken(one.topic, one.key, one.value, one.timestamp)
                for some in found.values()
                for one in some
            ]
            if records:
                if (rows := await steps.rows(records)) is not None:
                    await writer.write(rows)
                await consumer.commit()


if __name__ == "__main__":
    asyncio.run(work())
