"""Windows of the profiles that were active last, from the changelog of the session states."""

from __future__ import annotations

import logging

from stream.domain import codec, topics
from stream.domain.catalogue import Catalogue
from stream.domain.profile_state import ProfileState
from stream.domain.rules import Rules
from stream.domain.window import WindowBatch, window_batch
from stream.exceptions import BadStateError
from stream.kafka.connection import partitions_of, running
from stream.kafka.consumer import Consumer
from stream.settings import Settings

_log = logging.getLogger(__name__)


async def recent_windows(settings: Settings, catalogue: Catalogue, most: int) -> WindowBatch:
    """Windows of up to `most` profiles, each as its newest state has it; none in a new system.

    The catalogue tells the durations that events don't.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    rules = Rules(window_length=settings.window_length, durations=catalogue.durations)
    states: dict[bytes, ProfileState] = {}
    places = await partitions_of(settings, settings.topic(topics.SESSIONS_CHANGELOG))
    async with running(Consumer, settings) as consumer:
        starts = await consumer.beginning_offsets(places)
        for place, end in (await consumer.end_offsets(places)).items():
            consumer.assign([place])
            consumer.seek(place, max(starts[place], end - most // len(places)))
            async for record in consumer.until({place: end}):
                states |= _state(record.key, record.value)
    profiles = [(key.decode(), state) for key, state in states.items() if len(state.window)]
    return window_batch(profiles, rules)


def _state(key: bytes, value: bytes | None) -> dict[bytes, ProfileState]:
    if value is None:
        return {}
    try:
        return {key: codec.decode(value)}
    except BadStateError as error:
        _log.warning("Passed over in the changelog: %s", error)
        return {}
