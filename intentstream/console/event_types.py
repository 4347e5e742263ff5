"""How many events of each type come: read from the ends of the event topics, without a group."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

import msgspec

from stream.domain.cloudevents import event_data
from stream.domain.event_types import BY_NAME
from stream.domain.topics import EVENT_TOPICS
from stream.exceptions import BadRecordError, TopicsMissingError
from stream.kafka.connection import partitions_of, running
from stream.kafka.consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream.kafka.deadletters import Record
    from stream.settings import Settings

OTHER: Final = "other"
"""What names no type of ours."""

_FETCH_MS: Final = 500
_OVER_S: Final = 10.0
_MOST_RECORDS: Final = 5000


class _Event(msgspec.Struct):
    event_type: str = OTHER


_decode: Final = msgspec.json.Decoder(_Event).decode


class EventTypes:
    """Counts events while it follows them.

    Args:
        settings: where Kafka is.
        now_s: seconds, as a clock tells them.
    """

    def __init__(self, settings: Settings, now_s: Callable[[], float]) -> None:
        self._settings = settings
        self._now_s = now_s
        self._since_s = now_s()
        self._counted: deque[tuple[float, Counter[str]]] = deque()

    async def follow(self) -> None:
        """Count what comes from now on, until cancelled.

        Raises:
            BrokerUnavailableError: when Kafka doesn't answer.
            TopicsMissingError: when it has no topics of events.
        """
        self._counted.clear()
        self._since_s = self._now_s()
        settings = self._settings
        places = await partitions_of(settings, *map(settings.topic, EVENT_TOPICS))
        if not places:
            raise TopicsMissingError("there are no topics of events; `intentstream topics`")
        async with running(Consumer, settings) as consumer:
            consumer.assign(places)
            await consumer.seek_to_end(*places)
            while True:
                fetched = await consumer.getmany(timeout_ms=_FETCH_MS, max_records=_MOST_RECORDS)
                self.count([one for some in fetched.values() for one in some])

    def count(self, records: Iterable[Record]) -> None:
        """Count the types of events that came just now."""
        if counts := Counter(map(_type_in, records)):
            self._counted.append((self._now_s(), counts))

    def per_s(self) -> dict[str, float]:
        """Events a second by type, the commonest first, over the last ten seconds."""
        now_s = self._now_s()
        while self._counted and self._counted[0][0] < now_s - _OVER_S:
            self._counted.popleft()
        over_s = max(min(now_s - self._since_s, _OVER_S), 1.0)
        found: Counter[str] = Counter()
        for _, counts in self._counted:
            found += counts
        return {name: count / over_s for name, count in found.most_common()}


def _type_in(record: Record) -> str:
    try:
        name = _decode(event_data(record.value or b"", record.headers)).event_type
    except (msgspec.DecodeError, BadRecordError):
        return OTHER
    return name if name in BY_NAME else OTHER
