"""The event types. Whatever knows of event types is derived from this one table.

First the shapes that an event may have, then the types, each of a shape. `docs/extending.md` tells
how to add one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from stream.domain.topics import BROWSE_EVENTS, EVENT_TOPICS, PLAYBACK_EVENTS

LONGEST_ID: Final = 256
"""Characters of an id, or of a device's name, at most."""

_Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
_Seconds = Annotated[float, Field(ge=0, le=1_000_000)]
_Number = Annotated[int, Field(ge=0, le=32_767)]


class _Event(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")

    event_id: _Id = Field(description="Unique id of the event.")
    profile_id: _Id = Field(description="The profile; equals the record's key.")
    occurred_at_ms: int = Field(ge=0, lt=1 << 53, description="Event time, Unix milliseconds.")
    device: _Id | None = None
    country: _Id | None = None


class Playback(_Event):
    """One step of a sitting: of one title and episode by one `playback_id`."""

    event_type: str
    title_id: _Id
    playback_id: _Id = Field(
        description="The player's own id of one sitting, or of one session over several titles."
    )
    watched_s: _Seconds | None = Field(None, description="Cumulative within the sitting.")
    position_s: _Seconds | None = Field(
        None, description="In the title; how much was watched where no watched_s tells it."
    )
    duration_s: _Seconds | None = None
    season: _Number | None = None
    episode: _Number | None = None


class Browse(_Event):
    """A browse event about one title."""

    event_type: str
    title_id: _Id
    season: _Number | None = None
    episode: _Number | None = None


class Search(_Event):
    """A search; it may name the title that was picked, and the query."""

    event_type: str
    title_id: _Id | None = None
    query: Annotated[str, Field(max_length=1024)] | None = None


Event = Playback | Browse | Search


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event."""

    name: str
    topic: str
    """Without the prefix."""

    shape: type[Event]
    """Its fields. All events of one sitting are one interaction, any other is its own."""

    verb: int | None = None
    """The number in packed state of the interaction that it makes, which keeps its meaning for
    ever; None: it makes none and is only counted."""

    action: str = ""
    """The action, of `ACTIONS`, that the interaction stands for; of a play, where the title was
    never played before."""

    completes: bool = False
    """Whether it says that a sitting was watched to its end."""


PLAY: Final = 0
"""The verb of every sitting."""

EVENT_TYPES: Final = (
    EventType("play_start", PLAYBACK_EVENTS, Playback, verb=PLAY, action="discover"),
    EventType("play_progress", PLAYBACK_EVENTS, Playback, verb=PLAY, action="discover"),
    EventType("play_pause", PLAYBACK_EVENTS, Playback, verb=PLAY, action="discover"),
    EventType("play_resume", PLAYBACK_EVENTS, Playback, verb=PLAY, action="discover"),
    EventType("play_stop", PLAYBACK_EVENTS, Playback, verb=PLAY, action="discover"),
    EventType(
        "play_complete", PLAYBACK_EVENTS, Playback, verb=PLAY, action="discover", completes=True
    ),
    EventType("impression", BROWSE_EVENTS, Browse),
    EventType("title_open", BROWSE_EVENTS, Browse, verb=2, action="open"),
    EventType("trailer_play", BROWSE_EVENTS, Browse, verb=1, action="trailer"),
    EventType("list_add", BROWSE_EVENTS, Browse, verb=4, action="list"),
    EventType("list_remove", BROWSE_EVENTS, Browse),
    EventType("search", BROWSE_EVENTS, Search, verb=3, action="search"),
)

BY_NAME: Final[Mapping[str, EventType]] = {one.name: one for one in EVENT_TYPES}

ACTION_OF_VERB: Final[Mapping[int, str]] = {
    one.verb: one.action for one in EVENT_TYPES if one.verb is not None
}

STATELESS: Final = tuple(one.name for one in EVENT_TYPES if one.verb is None)
"""Types that are counted and leave no trace in a profile's features."""

PLAYS: Final = tuple(one.name for one in EVENT_TYPES if one.verb == PLAY)
"""Types that are steps of a sitting."""

LOOKS: Final = tuple(one.name for one in EVENT_TYPES if one.verb not in (None, PLAY))
"""Types that are an interaction of their own."""

COMPLETING: Final = tuple(one.name for one in EVENT_TYPES if one.completes)


def types_on(topic: str) -> tuple[str, ...]:
    """Names of the types that belong on `topic`."""
    return tuple(one.name for one in EVENT_TYPES if one.topic == topic)


def _model(shape: type[Event], types: Iterable[str]) -> type[Event]:
    """`shape`, which takes these types alone."""
    names: Any = Literal.__getitem__(tuple(types))
    return create_model(
        shape.__name__, __base__=shape, __doc__=shape.__doc__, event_type=(names, ...)
    )


def _models_on(topic: str) -> dict[type[Event], type[Event]]:
    shapes = dict.fromkeys(one.shape for one in EVENT_TYPES if one.topic == topic)
    return {
        shape: _model(
            shape, (one.name for one in EVENT_TYPES if (one.topic, one.shape) == (topic, shape))
        )
        for shape in shapes
    }


_MODELS: Final = {topic: _models_on(topic) for topic in EVENT_TOPICS}


def _adapter(models: Iterable[type[Event]]) -> TypeAdapter[Event]:
    first, *others = models
    taken: Any = first
    for one in others:
        taken |= one
    if others:
        taken = Annotated[taken, Field(discriminator="event_type")]
    return TypeAdapter(taken)


ADAPTERS: Final = {topic: _adapter(models.values()) for topic, models in _MODELS.items()}
"""What validates the values on each topic, and tells their JSON Schema."""


def event_of(fields: Mapping[str, Any]) -> Event:
    """The event of these fields.

    Raises:
        KeyError: when there is no such event type.
        ValidationError: when a field isn't as the type's shape has it.
    """
    known = BY_NAME[fields["event_type"]]
    return _MODELS[known.topic][known.shape].model_validate(fields)
