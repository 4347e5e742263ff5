"""`ViewingActivity.csv` of Netflix' export of personal data.

The columns are told by the cover sheet that comes with it. Times are UTC, the newest row is the
first, names of titles are in the member's language, and nothing has an id.
"""

from __future__ import annotations

import re
from datetime import UTC
from functools import cache
from typing import Any, Final

from pydantic import Field

from stream.adapters.adapter import Adapted, Adapter, Options, Record, passed_over, told
from stream.adapters.values import (
    after,
    clock_s,
    label,
    made_id,
    required,
    text,
    time_ms,
)

_SEASONS: Final = (
    "Season",
    "Series",
    "Part",
    "Volume",
    "Vol.",
    "Chapter",
    "Book",
    "Collection",
    "Staffel",
    "Teil",
    "Saison",
    "Partie",
    "Temporada",
    "Parte",
    "Stagione",
    "Seizoen",
    "Säsong",
    "Sæson",
    "Sesong",
    "Sezon",
    "Sezóna",
    "Évad",
    "Sezonul",
    "Kausi",
    "Сезон",
    "シーズン",
    "시즌",
    "第",
)
_ONLY_SEASON: Final = ("limited series", "miniseries", "mini-series", "miniserie", "mini-série")
_EPISODE: Final = re.compile(
    r"(?:Episode|Folge|Épisode|Episodio|Episódio|Avsnitt|Afsnit|Aflevering|Capítulo|Chapter) "
    r"(\d{1,4})",
    re.IGNORECASE,
)
_NOBODY: Final = "autoplayed: user action: none"
_CODE: Final = re.compile(r"([A-Z]{2}) \(.*\)")


class NetflixOptions(Options):
    """Words of the member's language."""

    season_words: tuple[str, ...] = Field(
        _SEASONS, description="Words that are before the number of a season in a title."
    )


def read(record: Record, options: NetflixOptions) -> Adapted:
    """The start of a row's sitting, and its end where its length or its bookmark is known."""
    kind = text(_column(record, "Supplemental Video Type"), "Supplemental Video Type")
    if kind:
        return passed_over(kind.lower().replace("_", " "))
    attributes = text(_column(record, "Attributes"), "Attributes") or ""
    if _NOBODY in attributes.lower():
        return passed_over("autoplay")
    profile = required(text(_column(record, "Profile Name"), "Profile Name"), "Profile Name")
    name = required(text(_column(record, "Title"), "Title"), "Title")
    start = time_ms(_column(record, "Start Time"), "Start Time", UTC)
    device = text(_column(record, "Device Type"), "Device Type")
    show, season, episode = _named(name, options.season_words)
    sitting = made_id("netflix", profile, start, name, device)
    country = text(_column(record, "Country"), "Country")
    code = _CODE.fullmatch(country) if country else None
    common = {
        "profile_id": profile,
        "title_id": show,
        "playback_id": sitting,
        "season": season,
        "episode": episode,
        "device": label(device, "Device Type"),
        "country": code[1] if code else label(country, "Country"),
    }
    started = {
        **common,
        "event_id": f"{sitting}-start",
        "event_type": "play_start",
        "occurred_at_ms": start,
    }
    watched = clock_s(_column(record, "Duration"), "Duration")
    position = clock_s(_column(record, "Bookmark"), "Bookmark") or None
    if not watched and position is None:
        return told(started)
    return told(
        started,
        {
            **common,
            "event_id": f"{sitting}-stop",
            "event_type": "play_stop",
            # Without a length nobody knows when it ended: a bookmark stands at its start then.
            "occurred_at_ms": after(start, watched or 0),
            "watched_s": watched or None,
            "position_s": position,
        },
    )


def _column(record: Record, name: str) -> Any:
    """A column, also where the header says the unit too: `Start Time (UTC)`."""
    if name in record:
        return record[name]
    wanted = f"{name} ("
    return next((record[key] for key in record if str(key).startswith(wanted)), None)


@cache
def _season(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?:{'|'.join(map(re.escape, longest_first))}) ?(\d{{1,4}})\D*", re.I)


def _named(name: str, season_words: tuple[str, ...]) -> tuple[str, int | None, int | None]:
    """The title of a row, and the numbers of season and episode where it has some."""
    parts = name.split(": ")
    for place, part in enumerate(parts[1:], 1):
        found = _season(season_words).fullmatch(part)
        is_only = part.lower() in _ONLY_SEASON
        if place < len(parts) - 1 and (found or is_only):
            number = _EPISODE.fullmatch(parts[place + 1].strip())
            season = int(found[1]) if found else None
            return ": ".join(parts[:place]), season, int(number[1]) if number else None
    return name, None, None


ADAPTER: Final = Adapter("netflix", NetflixOptions, read)
