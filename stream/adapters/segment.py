"""Segment's video events, which RudderStack's are too: `track` calls of their video spec.

https://www.twilio.com/docs/segment/connections/spec/video and
https://www.rudderstack.com/docs/event-spec/standard-events/video-events-spec/

Content events tell what is watched and how far. Playback events tell of the player: their positions
and lengths count advertisements, so neither is read, and they name no season and no episode.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from stream.adapters.adapter import Adapted, Adapter, Options, Record, passed_over, told
from stream.adapters.values import (
    above_zero,
    at,
    first,
    flag,
    label,
    made_id,
    number,
    ordinal,
    required,
    text,
    time_ms,
)

Browsing = Literal["impression", "title_open", "trailer_play", "search", "list_add", "list_remove"]

_CONTENT: Final = {
    "video content started": "play_start",
    "video content playing": "play_progress",
    "video content completed": "play_complete",
}
_PLAYBACK: Final = {
    "video playback paused": "play_pause",
    "video playback resumed": "play_resume",
    "video playback interrupted": "play_stop",
    "video playback exited": "play_stop",
    "video playback completed": "play_stop",
}
_OTHER_VIDEO: Final = {
    "video playback started": "before any content",
    "video playback buffer started": "buffering",
    "video playback buffer completed": "buffering",
    "video playback seek started": "seeking",
    "video playback seek completed": "seeking",
    "video quality updated": "quality",
}
_ROUNDING_S: Final = 1.0


class SegmentOptions(Options):
    """Where a workspace keeps what the spec has no place for. Paths begin at the message."""

    profile: tuple[str, ...] = Field(
        ("userId",), description="Who watches: the first of these paths that is there."
    )
    show: str = Field(
        "",
        description="Path of the show's id, such as `properties.program`. With it an episode is "
        "of its show, by season and episode; without, every asset is a title of its own.",
    )
    watched: str = Field(
        "", description="Path of the seconds watched in the sitting so far, where one is sent."
    )
    device: str = "context.device.type"
    country: str = "context.location.country"
    browse: dict[str, Browsing] = Field(
        {}, description="Names of one's own track calls -> our event types."
    )
    browse_title: str = Field(
        "",
        description="Path of the title in these calls, where it is not where plays have theirs.",
    )
    browse_query: str = Field("properties.query", description="Path of what was searched for.")


def read(record: Record, options: SegmentOptions) -> Adapted:
    """The event of a track call."""
    name = at(record, "event")
    named = name.strip().lower() if isinstance(name, str) else ""
    if named in _CONTENT or named in _PLAYBACK:
        return _played(record, options, named)
    if isinstance(name, str) and name in options.browse:
        return _browsed(record, options, options.browse[name])
    if named.startswith("video ad "):
        return passed_over("advertisement")
    return passed_over(_OTHER_VIDEO.get(named, "another call"))


def _played(record: Record, options: SegmentOptions, named: str) -> Adapted:
    profile = _profile(record, options)
    if profile is None:
        return passed_over("anonymous")
    asset, show = _title(record, options)
    if named in _PLAYBACK and options.show and show is None:
        # It would be a sitting of its own beside that of the episode.
        return passed_over("no show told")
    of_content = named in _CONTENT and not flag(at(record, "properties.livestream"))
    position = number(at(record, "properties.position"), "position") if of_content else None
    duration = above_zero(at(record, "properties.total_length"), "total_length")
    duration = duration if of_content else None
    event_type = _CONTENT.get(named) or _PLAYBACK[named]
    if event_type == "play_complete" and not _ended(position, duration):
        event_type = "play_progress"
    watched = number(at(record, options.watched), options.watched) if options.watched else None
    return told(
        {
            **_common(record, options, profile, event_type),
            "title_id": required(show or asset, "properties.asset_id"),
            "playback_id": required(
                text(at(record, "properties.session_id"), "session_id"), "properties.session_id"
            ),
            "watched_s": watched,
            "position_s": position,
            "duration_s": duration,
            **_numbers(record, show),
        }
    )


def _title(record: Record, options: SegmentOptions) -> tuple[str | None, str | None]:
    """The asset, and the show that it is an episode of."""
    asset = text(
        first(record, ("properties.asset_id", "properties.content_asset_id")),
        "properties.asset_id",
    )
    return asset, text(at(record, options.show), options.show) if options.show else None


def _numbers(record: Record, show: str | None) -> dict[str, int | None]:
    return {
        name: ordinal(at(record, f"properties.{name}"), name) if show else None
        for name in ("season", "episode")
    }


def _ended(position: float | None, duration: float | None) -> bool:
    """A pod that ended before an advertisement completes its content, too, as the spec names it."""
    return position is not None and duration is not None and position >= duration - _ROUNDING_S


def _browsed(record: Record, options: SegmentOptions, event_type: Browsing) -> Adapted:
    profile = _profile(record, options)
    if profile is None:
        return passed_over("anonymous")
    query = text(at(record, options.browse_query), options.browse_query)
    asset, show = _title(record, options)
    if options.browse_title:
        asset, show = text(at(record, options.browse_title), options.browse_title), None
    return told(
        {
            **_common(record, options, profile, event_type),
            "title_id": show or asset,
            "query": query if event_type == "search" else None,
            **_numbers(record, show),
        }
    )


def _profile(record: Record, options: SegmentOptions) -> str | None:
    given = text(first(record, options.profile), options.profile[0] if options.profile else "")
    if given is None and at(record, "anonymousId") is None:
        return required(given, " or ".join(options.profile) or "profile")
    return given


def _common(
    record: Record, options: SegmentOptions, profile: str, event_type: str
) -> dict[str, object]:
    # RudderStack has the latter where it could not correct the clock.
    time = time_ms(first(record, ("timestamp", "originalTimestamp")), "timestamp")
    message = text(at(record, "messageId"), "messageId")
    place = at(record, "properties.position")
    return {
        "event_id": message
        or made_id("segment", profile, at(record, "event"), time, repr(place), event_type),
        "profile_id": profile,
        "event_type": event_type,
        "occurred_at_ms": time,
        "device": label(at(record, options.device), options.device),
        "country": label(at(record, options.country), options.country),
    }


ADAPTER: Final = Adapter("segment", SegmentOptions, read)
