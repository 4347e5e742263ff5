"""Reads the events that nearly all records hold, several times as fast as `stream.domain.events`.

What is taken here is what the models of `stream.domain.event_types` take, and reads the same; those
models judge all else, and say why it can't be taken. A property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal, Protocol, get_args

import msgspec

from stream.domain.event_types import EVENT_TYPES, Event, types_on
from stream.domain.topics import EVENT_TOPICS


class EventFields(Protocol):
    """What all events tell; those of its type's shape are there beside it."""

    @property
    def event_id(self) -> str:
        """Unique id of the event."""

    @property
    def profile_id(self) -> str:
        """The profile."""

    @property
    def occurred_at_ms(self) -> int:
        """Event time, Unix milliseconds."""

    @property
    def device(self) -> str | None:
        """The device's name."""

    @property
    def event_type(self) -> str:
        """Name of an `EventType`."""


Reader = Callable[[bytes], EventFields | None]
"""The event in a record's value; None where the models are to judge it."""


def _kind(annotation: Any, bounds: Iterable[Any]) -> Any:
    """The type of a model's field, with its bounds, as msgspec has it."""
    arms = [arm for arm in get_args(annotation) if arm is not type(None)]
    if arms and type(None) in get_args(annotation):
        (arm,) = arms
        return _kind(*_unwrapped(arm)) | None
    limits = {
        name: limit
        for bound in bounds
        for name in ("min_length", "max_length", "ge", "le", "lt", "gt")
        if (limit := getattr(bound, name, None)) is not None
    }
    return Annotated[annotation, msgspec.Meta(**limits)] if limits else annotation


def _unwrapped(arm: Any) -> tuple[Any, list[Any]]:
    bare, *notes = get_args(arm) or (arm,)
    return bare, [bound for note in notes for bound in note.metadata]


def _reader(topic: str) -> Reader:
    """Reads the events of a topic: by one structure, which has what any of its shapes has."""
    types = [one for one in EVENT_TYPES if one.topic == topic]
    shapes: list[type[Event]] = list(dict.fromkeys(one.shape for one in types))
    fields: dict[str, Any] = {}
    needed: dict[type[Event], set[str]] = {shape: set() for shape in shapes}
    for shape in shapes:
        for name, known in shape.model_fields.items():
            if known.is_required():
                needed[shape].add(name)
            fields[name] = _kind(known.annotation, known.metadata)
    everywhere = set.intersection(*needed.values())
    named: Any = Literal.__getitem__(types_on(topic))
    structure = msgspec.defstruct(
        "QuickEvent",
        [
            ("event_type", named),
            *(
                (name, kind) if name in everywhere else (name, kind | None, None)
                for name, kind in fields.items()
                if name != "event_type"
            ),
        ],
        kw_only=True,
        gc=False,
    )
    decoder = msgspec.json.Decoder(structure)
    told = {one.name: tuple(needed[one.shape] - everywhere) for one in types}

    def read(value: bytes) -> EventFields | None:
        try:
            if not value.isascii():
                value.decode()  # msgspec doesn't look at the texts that it passes over
            event: Any = decoder.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        for name in told[event.event_type]:
            if getattr(event, name) is None:
                return None
        taken: EventFields = event
        return taken

    return read


READERS: Final = {topic: _reader(topic) for topic in EVENT_TOPICS}
"""By the topic's name, without the prefix."""
