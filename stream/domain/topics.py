"""The topics of the product and how each is configured. Knows names and configs, no client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

PLAYBACK_EVENTS: Final = "playback-events"
BROWSE_EVENTS: Final = "browse-events"
PLAYBACK_DLQ: Final = "playback-events.dlq"
BROWSE_DLQ: Final = "browse-events.dlq"
PROFILE_ERASURES: Final = "profile-erasures"
ERASURES_DLQ: Final = "profile-erasures.dlq"
PROFILE_REPUBLICATIONS: Final = "profile-republications"
REPUBLICATIONS_DLQ: Final = "profile-republications.dlq"
LATE_EVENTS: Final = "late-events"
INTENT_FEATURES: Final = "intent-features"
SESSIONS_CHANGELOG: Final = "sessions-changelog"
MODEL_RELEASES: Final = "intent-model"
MODEL_SHADOW: Final = "intent-shadow"

EVENT_TOPICS: Final = (PLAYBACK_EVENTS, BROWSE_EVENTS)
CONSUMED_TOPICS: Final = (*EVENT_TOPICS, PROFILE_ERASURES, PROFILE_REPUBLICATIONS)
"""The topics that the worker's group consumes."""

DEAD_LETTER_TOPICS: Final = (PLAYBACK_DLQ, BROWSE_DLQ, ERASURES_DLQ, REPUBLICATIONS_DLQ)

_BROKER_TIME: Final = {"message.timestamp.type": "LogAppendTime"}
_ROOM_FOR_ERROR_HEADERS: Final = {"max.message.bytes": str(2 * 1024 * 1024)}


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's name, before the prefix, and its broker-side configuration."""

    name: str
    config: dict[str, str] = field(default_factory=dict)


TOPICS: Final = (
    Topic(PLAYBACK_EVENTS, dict(_BROKER_TIME)),
    Topic(BROWSE_EVENTS, dict(_BROKER_TIME)),
    Topic(PLAYBACK_DLQ, dict(_ROOM_FOR_ERROR_HEADERS)),
    Topic(BROWSE_DLQ, dict(_ROOM_FOR_ERROR_HEADERS)),
    Topic(PROFILE_ERASURES, dict(_BROKER_TIME)),
    Topic(ERASURES_DLQ, dict(_ROOM_FOR_ERROR_HEADERS)),
    Topic(PROFILE_REPUBLICATIONS, dict(_BROKER_TIME)),
    Topic(REPUBLICATIONS_DLQ, dict(_ROOM_FOR_ERROR_HEADERS)),
    Topic(LATE_EVENTS),
    Topic(INTENT_FEATURES),
    Topic(
        SESSIONS_CHANGELOG,
        {"cleanup.policy": "compact", "min.compaction.lag.ms": str(3600 * 1000)},
    ),
    Topic(MODEL_RELEASES, {"cleanup.policy": "compact"}),
    Topic(MODEL_SHADOW, {"retention.ms": str(24 * 3600 * 1000)}),
)
