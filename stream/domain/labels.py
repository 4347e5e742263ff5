"""The label sets and 64-bit hashes that events, windows, the model and the features share.

Every code in a tensor or in packed state is an index into one of these tuples. They only ever grow
at the end, because a stored code must keep its meaning.
"""

from __future__ import annotations

from typing import Final

import xxhash

ACTIONS: Final = ("discover", "continue", "rewatch", "trailer", "open", "search", "list")
"""Action types of an interaction."""

GENRES: Final = (
    "action",
    "adventure",
    "animation",
    "anime",
    "biography",
    "children",
    "classic",
    "comedy",
    "crime",
    "documentary",
    "drama",
    "faith",
    "fantasy",
    "film-noir",
    "history",
    "horror",
    "independent",
    "international",
    "lgbtq",
    "music",
    "musical",
    "mystery",
    "reality",
    "romance",
    "sci-fi",
    "science-nature",
    "short",
    "sport",
    "stand-up",
    "talk-show",
    "teen",
    "thriller",
    "war",
    "western",
)
"""One genre vocabulary for every catalogue; converters map their own names into it."""

KINDS: Final = ("movie", "show")

RELEASE_AGES: Final = ("month", "quarter", "year", "3-years", "10-years", "20-years", "older")
"""Buckets of the time between a title's release and an interaction with it."""

RELEASE_AGE_EDGES_DAYS: Final = (30, 90, 365, 3 * 365, 10 * 365, 20 * 365)
"""Upper edges, in days and exclusive, of all `RELEASE_AGES` but the last."""

DEVICES: Final = ("other", "tv", "mobile", "tablet", "web", "console")
"""Known device classes; any other string counts as `other`."""

NO_TITLE: Final = 0
"""Title hash of an interaction that names no title (a search), and of padding."""


def device_hash(name: str) -> int:
    """What state and histories keep of a device's name: 32 bits, never 0, which is no device."""
    return xxhash.xxh3_64_intdigest(name.encode()) & 0xFFFF_FFFF or 1


def hash64(text: str) -> int:
    """xxh3 of the UTF-8 bytes of `text` as a signed 64-bit integer, never `NO_TITLE`."""
    unsigned = xxhash.xxh3_64_intdigest(text.encode())
    return (unsigned - (1 << 64) if unsigned >> 63 else unsigned) or 1
