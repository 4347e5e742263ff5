"""Tautulli's history of a Plex server: the answer of `get_history`, or rows of its table.

https://github.com/Tautulli/Tautulli, `get_history` in `plexpy/webserve.py`. With `grouping=0` a row
is a sitting; with 1 it holds the sittings of one title that follow each other, as one.
"""

from __future__ import annotations

from typing import Final

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
    at,
    first,
    flag,
    label,
    number,
    ordinal,
    required,
    seconds_ms,
    text,
    whole,
)

_NO_VIDEO: Final = {"track", "photo"}


def read(record: Record, _: Options) -> Adapted:
    """The start of a row's sitting, and its end."""
    kind = (text(at(record, "media_type"), "media_type") or "").lower()
    if kind in _NO_VIDEO:
        return passed_over("no video")
    if kind == "clip":
        return passed_over("trailer")
    if text(at(record, "state"), "state"):
        return passed_over("still playing")
    is_live = flag(at(record, "live")) or False
    start, stop = (
        seconds_ms(at(record, "started"), "started"),
        above_zero(at(record, "stopped"), "stopped"),
    )
    sitting = _sitting(record)
    is_episode = kind == "episode"
    show = text(at(record, "grandparent_rating_key"), "grandparent_rating_key")
    title = show if is_episode and show else text(at(record, "rating_key"), "rating_key")
    common = {
        "profile_id": required(text(at(record, "user_id"), "user_id"), "user_id"),
        "title_id": required(title, "rating_key"),
        "playback_id": sitting,
        "season": ordinal(at(record, "parent_media_index"), "season") if is_episode else None,
        "episode": ordinal(at(record, "media_index"), "episode") if is_episode else None,
        "device": label(first(record, ("platform", "player")), "platform"),
    }
    started = {
        **common,
        "event_id": f"tautulli-{sitting}-start",
        "event_type": "play_start",
        "occurred_at_ms": start,
    }
    if stop is None:
        return told(started)
    watched = _watched(record, stop)
    # Of what is live it always says so.
    is_whole = not is_live and number(at(record, "watched_status"), "watched_status") == 1
    return told(
        started,
        {
            **common,
            # A group's row changes while it grows.
            "event_id": f"tautulli-{sitting}-stop-{stop:.0f}",
            "event_type": "play_complete" if is_whole else "play_stop",
            "occurred_at_ms": max(start, seconds_ms(stop, "stopped")),
            "watched_s": watched,
        },
    )


def _sitting(record: Record) -> str:
    """The row's own id; of a group that of its first row, which stays when the group grows."""
    reference = text(at(record, "reference_id"), "reference_id")
    row = text(first(record, ("row_id", "id")), "row_id")
    is_group = (whole(at(record, "group_count"), "group_count") or 1) > 1
    return required((reference or row) if is_group else (row or reference), "reference_id")


def _watched(record: Record, stop: float) -> float | None:
    played = first(record, ("play_duration", "duration"))
    if played is not None:
        return above_zero(played, "play_duration")
    start = required(number(at(record, "started"), "started"), "started")
    paused = number(at(record, "paused_counter"), "paused_counter") or 0.0
    return stop - start - paused if stop - start > paused else None


ADAPTER: Final = Adapter(
    "tautulli", Options, read, Files(within=(("response", "data", "data"), ("data",)))
)
