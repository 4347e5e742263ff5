"""Interactions, what the model reads, and how two reports of one interaction are joined.

All playback events of one `playback_id` are one interaction; any other event that makes one, as
`stream.domain.event_types` has it, makes one of its own. Every field joins by a maximum, a minimum
or an order, so the join is commutative, associative and idempotent: order and repetition of events
can't hurt.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.domain.event_types import BY_NAME, Event, Playback, Search
from stream.domain.labels import DEVICES, NO_TITLE, hash64

_DEVICE_CODES: Final = {name: code for code, name in enumerate(DEVICES)}

INTERACTION: Final = np.dtype(
    [
        ("start_ms", "<i8"),
        ("key", "<i8"),
        ("end_ms", "<i8"),
        ("title", "<i8"),
        ("described_by", "<i8"),
        ("watched_ms", "<i4"),
        ("duration_ms", "<i4"),
        ("season", "<i2"),
        ("episode", "<i2"),
        ("device", "u1"),
        ("verb", "u1"),
        ("complete", "u1"),
    ]
)
"""One packed interaction; a window is an array of these, ordered by (`start_ms`, `key`)."""

InteractionArray = NDArray[Any]
"""`[N]` of dtype `INTERACTION`."""


class Interaction(NamedTuple):
    """One interaction, field by field as in `INTERACTION`.

    `key` is hash64 of the playback_id (of the event_id for browsing), `described_by` hash64 of the
    event that the descriptive fields come from: the one with the smallest (time, hash).
    Unknown `duration_ms`, `season` and `episode` are 0.
    """

    start_ms: int
    key: int
    end_ms: int
    title: int
    described_by: int
    watched_ms: int
    duration_ms: int
    season: int
    episode: int
    device: int
    verb: int
    complete: int


def carries_state(event: Event) -> bool:
    """Whether `event` is part of an interaction; those of other types are only counted."""
    return BY_NAME[event.event_type].verb is not None


def interaction_of(event: Event) -> Interaction | None:
    """The interaction that `event` alone amounts to; None for events that carry no state."""
    known = BY_NAME[event.event_type]
    if known.verb is None:
        return None
    at_ms = event.occurred_at_ms
    device = _DEVICE_CODES.get(event.device, 0) if event.device else 0
    event_hash = hash64(event.event_id)
    if isinstance(event, Playback):
        return Interaction(
            start_ms=at_ms,
            key=hash64(event.playback_id),
            end_ms=at_ms,
            title=hash64(event.title_id),
            described_by=event_hash,
            watched_ms=_ms(event.watched_s),
            duration_ms=_ms(event.duration_s),
            season=event.season or 0,
            episode=event.episode or 0,
            device=device,
            verb=known.verb,
            complete=int(known.completes),
        )
    part_of_show = None if isinstance(event, Search) else event
    return Interaction(
        start_ms=at_ms,
        key=event_hash,
        end_ms=at_ms,
        title=hash64(event.title_id) if event.title_id else NO_TITLE,
        described_by=event_hash,
        watched_ms=0,
        duration_ms=0,
        season=(part_of_show and part_of_show.season) or 0,
        episode=(part_of_show and part_of_show.episode) or 0,
        device=device,
        verb=known.verb,
        complete=0,
    )


def join(a: Interaction, b: Interaction) -> Interaction:
    """The least interaction that covers `a` and `b`, two reports of the same key."""
    return min(a, b, key=_description)._replace(
        end_ms=max(a.end_ms, b.end_ms),
        watched_ms=max(a.watched_ms, b.watched_ms),
        duration_ms=max(a.duration_ms, b.duration_ms),
        complete=a.complete | b.complete,
    )


def _description(i: Interaction) -> tuple[int, ...]:
    # The fields behind (time, event) only break the tie of two events that wrongly share one id.
    return (i.start_ms, i.described_by, i.title, i.season, i.episode, i.device, i.verb)


def measure(interactions: InteractionArray) -> int:
    """How much is known of these interactions.

    Grows with every join that changes their times, watch time or completion, and never falls. The
    sum over all of a profile's interactions is its `sequence_no`.
    """
    i = interactions
    return int(
        len(i) + (i["end_ms"] - i["start_ms"]).sum() + i["watched_ms"].sum() + i["complete"].sum()
    )


def _ms(seconds: float | None) -> int:
    return round(seconds * 1000) if seconds else 0
