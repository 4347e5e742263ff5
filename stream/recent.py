"""Windows of the profiles that were active last, from the changelog of the session states."""

from __future__ import annotations

import logging
from typing import Final

from aiokafka import AIOKafkaConsumer

from stream import codec, topics
from stream.catalogue import read_catalogue
from stream.exceptions import BadState
from stream.kafka import answering, partitions_of, running
from stream.session import ProfileState, Rules
from stream.settings import Settings
from stream.window import WindowBatch, window_batch

_log = logging.getLogger(__name__)
_PATIENCE_MS: Final = 1000
_READ_S: Final = 60.0


async def recent_windows(settings: Settings, most: int) -> WindowBatch:
    """Windows of up to `most` profiles, each as its newest state has it; none in a new system.

    Raises:
        BrokerUnavailable: when Kafka does not answer.
    """
    rules = Rules(
        window_length=settings.window_length,
        duration_ms=read_catalogue(settings.catalogue).duration_ms,
    )
    states: dict[bytes, ProfileState] = {}
    places = await partitions_of(settings, settings.topic(topics.SESSIONS_CHANGELOG))
    async with running(AIOKafkaConsumer, settings) as consumer, answering(settings, _READ_S):
        starts = await consumer.beginning_offsets(places)
        for place, end in (await consumer.end_offsets(places)).items():
            consumer.assign([place])
            consumer.seek(place, max(starts[place], end - most // len(places)))
            while await consumer.position(place) < end:
                for records in (await consumer.getmany(timeout_ms=_PATIENCE_MS)).values():
                    for record in records:
                        states |= _state(record.key, record.value)
    profiles = [(key.decode(), state) for key, state in states.items() if len(state.window)]
    return window_batch(profiles, rules)


def _state(key: bytes, value: bytes | None) -> dict[bytes, ProfileState]:
    if value is None:
        return {}
    try:
        return {key: codec.decode(value)}
    except BadState as error:
        _log.warning("Passed over in the changelog: %s", error)
        return {}
