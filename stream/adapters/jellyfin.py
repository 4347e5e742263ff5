"""Jellyfin: the backup of its playback-reporting plugin, and the messages of its webhook plugin.

https://github.com/jellyfin/jellyfin-plugin-playbackreporting (the TSV has no header and the times
of the server's own clock) and https://github.com/jellyfin/jellyfin-plugin-webhook (a generic
destination with "Send All Properties").
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from stream.adapters.adapter import (
    Adapted,
    Adapter,
    Files,
    Options,
    Record,
    passed_over,
    told,
)
from stream.adapters.values import (
    above_zero,
    after,
    at,
    first,
    flag,
    label,
    made_id,
    required,
    text,
    time_ms,
    whole,
)

COLUMNS: Final = (
    "DateCreated",
    "UserId",
    "ItemId",
    "ItemType",
    "ItemName",
    "PlaybackMethod",
    "ClientName",
    "DeviceName",
    "PlayDuration",
)

_EPISODE: Final = re.compile(r"(?P<show>.+?) - s(?P<season>\d+)e(?P<episode>\d+) - .*", re.DOTALL)
_NO_VIDEO: Final = {
    "audio",
    "audiobook",
    "book",
    "musicalbum",
    "photo",
    "photoalbum",
    "playlist",
}
_LIVE: Final = {"livetvchannel", "livetvprogram", "program", "recording", "tvchannel"}
_TICKS_A_SECOND: Final = 10_000_000
_DAY_BEGINS: Final = timedelta(hours=5)
_NOTIFICATIONS: Final = {
    "PlaybackStart": "play_start",
    "PlaybackProgress": "play_progress",
    "PlaybackStop": "play_stop",
}


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone such as Europe/Berlin") from None
    return name


TimeZone = Annotated[str, AfterValidator(_known_zone)]


class ReportOptions(Options):
    """What the backup leaves out."""

    time_zone: TimeZone = Field(
        description="The server's, as in Europe/Berlin: the file has its local times."
    )
    series: dict[str, str] = Field(
        {},
        description="Name of a series -> its id in the catalogue. The file has but the episodes' "
        "ids and the series' names; a series that isn't listed is called by its name.",
    )


class WebhookOptions(Options):
    """When a day ends, by which sittings are told apart."""

    time_zone: TimeZone = Field(
        "UTC", description="In which a day ends, at 5 in the morning: see docs/adapters.md."
    )


def read_report(record: Record, options: ReportOptions) -> Adapted:
    """The start of a row's sitting, and its end where its length is known."""
    for name in COLUMNS:
        required(record.get(name), name)
    kind = _kind(record)
    if why := _no_play(kind):
        return passed_over(why)
    user, item = _guid(record, "UserId"), _guid(record, "ItemId")
    start = time_ms(record["DateCreated"], "DateCreated", ZoneInfo(options.time_zone))
    episode = _EPISODE.fullmatch(str(record["ItemName"])) if kind == "episode" else None
    sitting = made_id("jellyfin", record["DateCreated"], user, item)
    common = {
        "profile_id": user,
        "title_id": options.series.get(episode["show"], episode["show"]) if episode else item,
        "playback_id": sitting,
        # It writes 0 for what it doesn't know.
        "season": int(episode["season"]) or None if episode else None,
        "episode": int(episode["episode"]) or None if episode else None,
        "device": label(record["ClientName"], "ClientName"),
    }
    started = {
        **common,
        "event_id": f"{sitting}-start",
        "event_type": "play_start",
        "occurred_at_ms": start,
    }
    # A row begins with 0, and keeps it if the server stops before it says more.
    watched = above_zero(record["PlayDuration"], "PlayDuration")
    if watched is None:
        return told(started)
    return told(
        started,
        {
            **common,
            "event_id": f"{sitting}-stop-{watched:g}",
            "event_type": "play_stop",
            "occurred_at_ms": after(start, watched),
            "watched_s": watched,
        },
    )


def read_webhook(record: Record, options: WebhookOptions) -> Adapted:
    """The event of a notification."""
    notification = at(record, "NotificationType")
    event_type = _NOTIFICATIONS.get(notification) if isinstance(notification, str) else None
    if event_type is None:
        return passed_over("another notification")
    kind = _kind(record)
    if why := _no_play(kind):
        return passed_over(why)
    user, item = _guid(record, "UserId"), _guid(record, "ItemId")
    series = text(at(record, "SeriesId"), "SeriesId") if kind == "episode" else None
    time = time_ms(at(record, "UtcTimestamp"), "UtcTimestamp", ZoneInfo("UTC"))
    device = text(first(record, ("DeviceId", "DeviceName")), "DeviceId")
    sitting = made_id("jellyfin", user, device, item, _day(time, ZoneInfo(options.time_zone)))
    if flag(at(record, "PlayedToCompletion")) and event_type == "play_stop":
        event_type = "play_complete"
    if flag(at(record, "IsPaused")) and event_type == "play_progress":
        event_type = "play_pause"
    position, duration = _ticks(record, "PlaybackPositionTicks"), _ticks(record, "RunTimeTicks")
    is_live = kind in _LIVE
    return told(
        {
            "event_id": made_id("jellyfin", sitting, notification, time, position),
            "profile_id": user,
            "event_type": event_type,
            "occurred_at_ms": time,
            "title_id": _plain(series) if series else item,
            "playback_id": sitting,
            "position_s": None if is_live else position,
            "duration_s": None if is_live else duration,
            "season": whole(at(record, "SeasonNumber"), "SeasonNumber"),
            "episode": whole(at(record, "EpisodeNumber"), "EpisodeNumber"),
            "device": label(first(record, ("ClientName", "Client")), "ClientName"),
        }
    )


def _kind(record: Record) -> str:
    return (text(at(record, "ItemType"), "ItemType") or "").lower()


def _no_play(kind: str) -> str:
    if kind in _NO_VIDEO:
        return "no video"
    return "trailer" if kind == "trailer" else ""


def _guid(record: Record, name: str) -> str:
    return _plain(required(text(at(record, name), name), name))


def _plain(guid: str) -> str:
    """An id as the backup writes it: the webhook's may have hyphens, by how it is configured."""
    bare = guid.replace("-", "").lower()
    return bare if re.fullmatch("[0-9a-f]{32}", bare) else guid


def _ticks(record: Record, name: str) -> float | None:
    # The plugin writes 0 for what the server doesn't know.
    ticks = above_zero(at(record, name), name)
    return None if ticks is None else ticks / _TICKS_A_SECOND


def _day(time: int, zone: ZoneInfo) -> str:
    try:
        return str((datetime.fromtimestamp(time / 1000, zone) - _DAY_BEGINS).date())
    except (OverflowError, ValueError, OSError):
        return "never"


REPORTS: Final = Adapter(
    "jellyfin-reports", ReportOptions, read_report, Files(delimiter="\t", columns=COLUMNS)
)
WEBHOOK: Final = Adapter("jellyfin-webhook", WebhookOptions, read_webhook)
