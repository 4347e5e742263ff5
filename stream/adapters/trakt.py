"""Trakt's history of one member: `/sync/history`, or the files of an export.

https://trakt.docs.apiary.io/#reference/sync/get-history. Trakt keeps what was watched to its end,
by its measure, and when; it knows no length and no device.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from stream.adapters.adapter import Adapted, Adapter, Options, Record, passed_over, told
from stream.adapters.values import at, ordinal, required, text, time_ms


class TraktOptions(Options):
    """Whose history it is, and what its titles are called."""

    profile_id: str = Field(min_length=1, description="The member, whom the file doesn't name.")
    ids: Literal["trakt", "slug", "imdb", "tmdb", "tvdb"] = Field(
        "trakt", description="Which of a title's ids the catalogue has."
    )
    actions: tuple[Literal["scrobble", "checkin", "watch"], ...] = Field(
        ("scrobble", "checkin", "watch"),
        description="Entries that are taken. `watch` is what was marked by hand, often whole "
        "seasons at one time, which is then no time of watching.",
    )


def read(record: Record, options: TraktOptions) -> Adapted:
    """An entry, as a sitting that was watched to its end."""
    action = text(at(record, "action"), "action") or "watch"
    if action not in options.actions:
        return passed_over(f"a {action}" if action in ("scrobble", "checkin", "watch") else "other")
    kind = required(text(at(record, "type"), "type"), "type")
    if kind not in ("movie", "episode"):
        return passed_over("neither movie nor episode")
    of = "movie" if kind == "movie" else "show"
    path = f"{of}.ids.{options.ids}"
    entry = required(text(at(record, "id"), "id"), "id")
    return told(
        {
            "event_id": f"trakt-{entry}",
            "profile_id": options.profile_id,
            "event_type": "play_complete",
            "occurred_at_ms": time_ms(at(record, "watched_at"), "watched_at"),
            "title_id": required(text(at(record, path), path), path),
            "playback_id": f"trakt-{entry}",
            "season": ordinal(at(record, "episode.season"), "season") if of == "show" else None,
            "episode": ordinal(at(record, "episode.number"), "episode") if of == "show" else None,
        }
    )


ADAPTER: Final = Adapter("trakt", TraktOptions, read)
