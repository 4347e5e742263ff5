"""Ratings: who rated what, and when, as data sets of recommenders have them.

A rating says that the member has seen the title by then, and nothing of how: it becomes an
impression and a complete play at its time, with no watch time, length or device.
"""

from __future__ import annotations

from typing import Final

from pydantic import Field

from stream.adapters.adapter import Adapted, Adapter, Options, Record
from stream.adapters.values import at, made_id, required, seconds_ms, text


class RatingsOptions(Options):
    """Whose ratings they are, and where a record has what."""

    source: str = Field(
        min_length=1,
        description="Put before the ids of ratings and users, which are often numbers.",
    )
    rating: str = Field(
        "rating_id",
        description="The rating's own id. Ratings of one time are in the order of their ids as "
        "texts, so numbers are to have zeros before them. Without one, it is made of user, title "
        "and time.",
    )
    user: str = Field("user_id", description="Who rated.")
    title: str = Field("title_id", description="What was rated.")
    time: str = Field("timestamp", description="When, in Unix seconds.")


def read(record: Record, options: RatingsOptions) -> Adapted:
    """The impression and the play of a rating."""
    user = required(text(at(record, options.user), options.user), options.user)
    title = required(text(at(record, options.title), options.title), options.title)
    time = seconds_ms(at(record, options.time), options.time)
    own = text(at(record, options.rating), options.rating) or made_id(user, title, time)
    rating = f"{options.source}-{own}"
    common = {
        "profile_id": f"{options.source}-{user}",
        "occurred_at_ms": time,
        "title_id": title,
    }
    impression = {**common, "event_id": f"{rating}-i", "event_type": "impression"}
    play = {**common, "event_id": f"{rating}-p", "event_type": "play_complete"}
    return Adapted((impression, play | {"playback_id": rating}))


ADAPTER: Final = Adapter("ratings", RatingsOptions, read)
