"""Real events in a member's name, for whoever tries the system on a stack of its own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.conn import collect_hosts

from stream.domain.event_types import BY_NAME, Event
from stream.domain.events import checked
from stream.exceptions import ActingRefusedError
from stream.kafka.connection import answering, client_options, start
from stream.settings import Settings

ACTS: Final[Mapping[str, str]] = {
    "play": "play_start",
    "watch": "play_progress",
    "finish": "play_complete",
    "open": "title_open",
    "trailer": "trailer_play",
    "search": "search",
    "list": "list_add",
}
"""What one may do, and the event that it is."""

_USUAL_S: Final = 5_400.0
"""How long a title of unknown duration is taken to be."""

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def may_act(settings: Settings) -> str:
    """Why nobody may act as a member here; empty where one may.

    It takes both: the setting, which the local stack sets and nobody else, and brokers on this
    machine's loopback, because a setting may be left over from another day.
    """
    if not settings.console_may_act:
        return "INTENT_CONSOLE_MAY_ACT is not set; `make up` sets it for its own stack"
    if any(host not in _LOOPBACK for host, *_ in collect_hosts(settings.kafka_bootstrap)):
        return f"Kafka at {settings.kafka_bootstrap} is not on this machine"
    return ""


def event_for(
    profile_id: str,
    act: str,
    *,
    now_ms: int,
    title_id: str | None = None,
    query: str | None = None,
    playback_id: str | None = None,
    duration_s: float | None = None,
) -> Event:
    """The event of an act, valid by the models that the worker reads events with.

    Args:
        profile_id: who acts.
        act: a name in `ACTS`.
        now_ms: Unix milliseconds.
        title_id: what with; a search may do without.
        query: what is searched for.
        playback_id: of the sitting that goes on; by default a new one.
        duration_s: of the title, where it is known.

    Raises:
        BadRecordError: when it is no event: says what is wrong.
    """
    fields: dict[str, Any] = {
        "event_id": f"console-{uuid.uuid4().hex}",
        "profile_id": profile_id,
        "event_type": ACTS.get(act, act),
        "occurred_at_ms": now_ms,
        "title_id": title_id,
    }
    if act == "search":
        fields["query"] = query
    if act in ("play", "watch", "finish"):
        duration_s = duration_s or _USUAL_S
        watched_s = {"play": 0.0, "watch": duration_s / 2, "finish": duration_s}[act]
        fields |= {
            "playback_id": playback_id or f"console-{uuid.uuid4().hex[:16]}",
            "watched_s": watched_s,
            "duration_s": duration_s,
        }
    return checked(fields)


class Actor:
    """Sends events; connects with the first.

    Args:
        settings: where Kafka is, and whether one may.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None

    async def send(self, event: Event) -> float:
        """Send an event to its topic; returns how many milliseconds the broker took.

        Raises:
            ActingRefusedError: when nobody may act here.
            BrokerUnavailableError: when Kafka does not take it.
        """
        if reason := may_act(self._settings):
            raise ActingRefusedError(f"nobody may act as a member here: {reason}")
        if self._producer is None:
            producer = AIOKafkaProducer(**client_options(self._settings), enable_idempotence=True)
            await start(producer, self._settings)
            self._producer = producer
        began = time.perf_counter()
        async with answering(self._settings):
            await self._producer.send_and_wait(
                self._settings.topic(BY_NAME[event.event_type].topic),
                event.model_dump_json(exclude_none=True).encode(),
                key=event.profile_id.encode(),
            )
        return (time.perf_counter() - began) * 1000

    async def close(self) -> None:
        """Close the connection."""
        if self._producer is not None:
            await self._producer.stop()
