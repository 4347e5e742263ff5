"""Snowplow's media events, version 2, enriched and as JSON or Parquet.

https://docs.snowplow.io/docs/events/ootb-data/media-events and the schemas of
`com.snowplowanalytics.snowplow.media` in Iglu Central. Both spellings of an enriched event are
read: a column for each entity (`contexts_com_acme_title_1`, as the analytics SDKs and the loaders
write it; properties in camel case or, in warehouses, in snake case), and `contexts` as it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Final

from pydantic import Field

from stream.adapters.adapter import Adapted, Adapter, Options, Record, passed_over, told
from stream.adapters.values import (
    above_zero,
    at,
    first,
    flag,
    label,
    number,
    ordinal,
    required,
    text,
    time_ms,
)

_PLAYS: Final = {
    "play_event": "play_start",
    "pause_event": "play_pause",
    "ping_event": "play_progress",
    "percent_progress_event": "play_progress",
    "seek_start_event": "play_progress",
    "seek_end_event": "play_progress",
    "end_event": "play_complete",
}
_VENDOR: Final = "com.snowplowanalytics.snowplow.media"
_PLAYER: Final = "com.snowplowanalytics.snowplow/media_player/2"
_SESSION: Final = "com.snowplowanalytics.snowplow.media/session/1"
_SCHEMA: Final = re.compile(
    r"(?:iglu:)?(?P<vendor>[\w.-]+)/(?P<name>[\w-]+)/(?:jsonschema/)?(?P<model>\d+)[\d-]*"
)
_ROUNDING_S: Final = 1.0


class SnowplowOptions(Options):
    """Which entity names the title: Snowplow has none of its own."""

    title_entity: str = Field(
        description="The schema of the entity that names the title, such as "
        "`iglu:com.acme/title/jsonschema/1-0-0`; any version of its model is read.",
        pattern=_SCHEMA.pattern,
    )
    title: str = Field("id", description="Path in it of the title's, or the show's, id.")
    season: str = "season"
    episode: str = "episode"
    profile: tuple[str, ...] = Field(
        ("user_id",), description="Who watches: the first of these paths that is there."
    )
    device: str = "dvce_type"
    country: str = "geo_country"


def read(record: Record, options: SnowplowOptions) -> Adapted:
    """The event of an enriched event."""
    name = _name(record)
    if name is None:
        return passed_over("no media event")
    if name not in _PLAYS:
        return passed_over("advertisement" if name.startswith("ad_") else "player")
    entity = _entity(record, options.title_entity)
    if entity is None:
        return passed_over("no title entity")
    profile = text(first(record, options.profile), "profile")
    if profile is None:
        return passed_over("anonymous")
    player = _entity(record, _PLAYER) or {}
    session = _entity(record, _SESSION) or {}
    is_live = flag(_property(player, "livestream")) or False
    position = number(_property(player, "currentTime"), "currentTime")
    duration = None if is_live else above_zero(_property(player, "duration"), "duration")
    event_type = _PLAYS[name]
    if event_type == "play_complete" and (is_live or not _ended(player, position, duration)):
        event_type = "play_stop"
    if event_type == "play_start" and position:
        event_type = "play_resume"
    return told(
        {
            "event_id": required(text(at(record, "event_id"), "event_id"), "event_id"),
            "profile_id": profile,
            "event_type": event_type,
            "occurred_at_ms": time_ms(
                first(record, ("derived_tstamp", "collector_tstamp")), "derived_tstamp", UTC
            ),
            "title_id": required(text(at(entity, options.title), options.title), options.title),
            "playback_id": required(
                text(_property(session, "mediaSessionId"), "mediaSessionId"),
                "mediaSessionId of the media session entity",
            ),
            "watched_s": number(
                first(
                    session,
                    ("contentWatched", "content_watched", "timePlayed", "time_played"),
                ),
                "contentWatched",
            ),
            # Where somebody sought to is not where they watched to.
            "position_s": None if is_live or name.startswith("seek_") else position,
            "duration_s": duration,
            "season": ordinal(at(entity, options.season), options.season),
            "episode": ordinal(at(entity, options.episode), options.episode),
            "device": label(at(record, options.device), options.device),
            "country": label(at(record, options.country), options.country),
        }
    )


def _ended(player: Mapping[str, Any], position: float | None, duration: float | None) -> bool:
    """Media also end where no more data is to be had."""
    if position is not None and duration is not None:
        return position >= duration - _ROUNDING_S
    return flag(_property(player, "ended")) or False


def _name(record: Record) -> str | None:
    """The name of a media event, None of any other."""
    if at(record, "event_vendor") == _VENDOR:
        name = at(record, "event_name")
        return name if isinstance(name, str) else None
    schema = at(record, "unstruct_event.data.schema")
    found = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    return found["name"] if found and found["vendor"] == _VENDOR else None


def _entity(record: Record, schema: str) -> Mapping[str, Any] | None:
    """The first entity of a schema, whatever the version of its model."""
    wanted = _SCHEMA.fullmatch(schema)
    if wanted is None:
        return None
    vendor, name, model = wanted.group("vendor", "name", "model")
    column = re.sub(r"\W", "_", f"contexts_{vendor}_{name}_{model}").lower()
    given = record.get(column)
    if given is None:
        sent = at(record, "contexts.data") if not isinstance(record.get("contexts"), list) else None
        many = record["contexts"]["data"] if sent is not None else record.get("contexts")
        for one in many if isinstance(many, Sequence) and not isinstance(many, str | bytes) else ():
            told_schema = at(one, "schema")
            found = _SCHEMA.fullmatch(told_schema) if isinstance(told_schema, str) else None
            if found and found.group("vendor", "name", "model") == (vendor, name, model):
                given = at(one, "data")
                break
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        given = given[0] if given else None
    return given if isinstance(given, Mapping) else None


def _property(entity: Mapping[str, Any], name: str) -> Any:
    """A property in camel case, or in snake case as warehouses have it."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return first(entity, (name, snake))


ADAPTER: Final = Adapter("snowplow", SnowplowOptions, read)
