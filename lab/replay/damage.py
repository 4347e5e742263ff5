"""Every kind of malformed record that a replay mixes in, with the reason that it must be given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream.domain.event_types import LONGEST_ID
from stream.domain.topics import BROWSE_EVENTS, PLAYBACK_EVENTS
from stream.exceptions import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

Fields = dict[str, Any]
"""A valid event as its JSON object."""

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Bad:
    """One malformed record as it is sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to spoil a valid playback event.

    Attributes:
        name: what is wrong with it.
        reason: what the dead letter must say.
        spoil: makes the record's value of the event's fields.
        key: makes the record's key, where it is not the profile id that the value names.
        topic: where it is sent.
    """

    name: str
    reason: Reason
    spoil: Callable[[Fields], bytes | None]
    key: Callable[[Fields], bytes | None] = lambda fields: fields["profile_id"].encode()
    topic: str = PLAYBACK_EVENTS

    def apply(self, fields: Fields) -> Bad:
        """The malformed record made of a valid playback event, which is left as it is."""
        return Bad(self.topic, self.key(fields), self.spoil(fields), self.reason)


def _with(**changes: Any) -> Callable[[Fields], bytes]:
    return lambda fields: orjson.dumps(fields | changes)


def _without(name: str) -> Callable[[Fields], bytes]:
    return lambda fields: orjson.dumps({k: v for k, v in fields.items() if k != name})


def _literal(name: str, literal: bytes) -> Callable[[Fields], bytes]:
    """The field `name` with a value that no JSON encoder would write."""
    return lambda fields: orjson.dumps(fields | {name: "?"}).replace(b'"?"', literal)


_LONG: Final = "x" * (LONGEST_ID + 1)

KINDS: Final = (
    Kind("no value", Reason.EMPTY, lambda _: None),
    Kind("empty value", Reason.EMPTY, lambda _: b""),
    Kind("larger than allowed", Reason.OVERSIZED, _with(note="x" * 70_000)),
    Kind("bytes that are not UTF-8", Reason.BAD_UTF8, _literal("title_id", b'"\xff\xfe"')),
    Kind("cut short", Reason.NOT_JSON, lambda fields: orjson.dumps(fields)[:12]),
    Kind("half a surrogate pair", Reason.NOT_JSON, _literal("title_id", b'"\\ud800"')),
    Kind("plain text", Reason.NOT_JSON, lambda fields: fields["event_id"].encode()),
    Kind("an array", Reason.NOT_AN_OBJECT, lambda fields: orjson.dumps([fields])),
    Kind("a number", Reason.NOT_AN_OBJECT, lambda _: b"42"),
    Kind("null", Reason.NOT_AN_OBJECT, lambda _: b"null"),
    Kind("no profile", Reason.MISSING_FIELD, _without("profile_id")),
    Kind("no event id", Reason.MISSING_FIELD, _without("event_id")),
    Kind("no event type", Reason.MISSING_FIELD, _without("event_type")),
    Kind("no time", Reason.MISSING_FIELD, _without("occurred_at_ms")),
    Kind("no title", Reason.MISSING_FIELD, _without("title_id")),
    Kind("no playback id", Reason.MISSING_FIELD, _without("playback_id")),
    Kind("time as text", Reason.WRONG_TYPE, _with(occurred_at_ms="2026-01-01T00:00:00Z")),
    Kind("time with a fraction", Reason.WRONG_TYPE, _with(occurred_at_ms=1.5)),
    Kind("title as a number", Reason.WRONG_TYPE, _with(title_id=7)),
    Kind("watch time as text", Reason.WRONG_TYPE, _with(watched_s="12")),
    Kind("profile as an object", Reason.WRONG_TYPE, _with(profile_id={"id": 1})),
    Kind("watch time not a number", Reason.NOT_FINITE, _literal("watched_s", b"NaN")),
    Kind("endless position", Reason.NOT_FINITE, _literal("position_s", b"Infinity")),
    Kind("endless duration, negative", Reason.NOT_FINITE, _literal("duration_s", b"-Infinity")),
    Kind("negative watch time", Reason.OUT_OF_RANGE, _with(watched_s=-1)),
    Kind("time before 1970", Reason.OUT_OF_RANGE, _with(occurred_at_ms=-1)),
    Kind("empty event id", Reason.OUT_OF_RANGE, _with(event_id="")),
    Kind("overlong event id", Reason.OUT_OF_RANGE, _with(event_id=_LONG)),
    Kind("empty playback id", Reason.OUT_OF_RANGE, _with(playback_id="")),
    Kind(
        "overlong profile",
        Reason.OUT_OF_RANGE,
        _with(profile_id=_LONG),
        key=lambda _: _LONG.encode(),
    ),
    Kind("unknown event type", Reason.UNKNOWN_EVENT_TYPE, _with(event_type="play_rewind")),
    Kind(
        "playback event on the browse topic",
        Reason.UNKNOWN_EVENT_TYPE,
        orjson.dumps,
        topic=BROWSE_EVENTS,
    ),
    Kind(
        "another profile's key",
        Reason.KEY_MISMATCH,
        orjson.dumps,
        key=lambda fields: fields["profile_id"].encode() + b"-other",
    ),
    Kind("no key", Reason.KEY_MISMATCH, orjson.dumps, key=lambda _: None),
    Kind(
        "a day ahead",
        Reason.IN_THE_FUTURE,
        lambda fields: orjson.dumps(fields | {"occurred_at_ms": fields["occurred_at_ms"] + DAY_MS}),
    ),
)
"""All kinds. They expect an event whose time is the time of sending, and the default size limit."""
