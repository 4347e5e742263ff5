"""Decode: what a batch's records say, and which of them are dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import product
from typing import Final

from stream import metrics
from stream.domain import topics
from stream.domain.events import check_readable, decode_quickly, erased_profile
from stream.exceptions import BadRecordError, Reason
from stream.kafka.deadletters import dead_letter
from stream.settings import Settings
from stream.worker.forwarding import broker_time_ms
from stream.worker.micro_batch import Decoded, MicroBatch, StampedRecord

YIELD_EVERY: Final = 64
"""Records that are handled at a stretch, some 3 ms: batches ahead need the event loop too."""

_REQUESTS: Final = (topics.PROFILE_ERASURES, topics.PROFILE_REPUBLICATIONS)


class Decoder:
    """Decodes the records of all topics that a worker consumes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plain_topic = {settings.topic(name): name for name in topics.CONSUMED_TOPICS}
        for topic, reason in product(topics.CONSUMED_TOPICS, Reason):
            # Prometheus can't tell the first of a kind from one that was always there.
            metrics.DEAD_LETTERS.labels(topic, reason.value)

    async def decode(self, records: Sequence[StampedRecord], batch: MicroBatch) -> None:
        """Put what records say into a batch, and their dead letters."""
        for number, record in enumerate(records):
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            topic = self._plain_topic[record.topic]
            broker_ms = broker_time_ms(record, round(record.timestamp * 1000))
            try:
                batch.decoded.append(self._decoded(topic, record, broker_ms))
            except BadRecordError as error:
                batch.rejected.append(dead_letter(topic, record, broker_ms, error))
                batch.outcomes[topic, "dead_letter"] += 1
                metrics.DEAD_LETTERS.labels(topic, error.reason.value).inc()

    def _decoded(self, topic: str, record: StampedRecord, broker_ms: int) -> Decoded:
        check_readable(record.value, record.headers)
        if topic in _REQUESTS:
            return Decoded(record, topic, broker_ms, erased_profile(record.key), None)
        event = decode_quickly(
            topic,
            record.key,
            record.value,
            broker_time_ms=broker_ms,
            headers=record.headers,
            max_ahead_s=self._settings.max_ahead_s,
            max_bytes=self._settings.max_event_bytes,
        )
        return Decoded(record, topic, broker_ms, event.profile_id, event)
