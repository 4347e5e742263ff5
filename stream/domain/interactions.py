"""Interactions, what the model reads, and how two reports of one interaction are joined.

All playback events of one sitting are one interaction; a sitting is what has the same playback_id,
title, season and episode, because a player may keep its id over several of them. Any other event
that makes an interaction, as `stream.domain.event_types` has it, makes one of its own. Every field
joins by a maximum, a minimum or an order, so the join is commutative, associative and idempotent:
order and repetition of events can't hurt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.domain.compiled import compiled
from stream.domain.event_types import BY_NAME, PLAY, Playback, Search
from stream.domain.labels import NO_TITLE, device_hash, hash64
from stream.domain.quick_events import EventFields

INTERACTION: Final = np.dtype(
    [
        ("start_ms", "<i8"),
        ("key", "<i8"),
        ("end_ms", "<i8"),
        ("title", "<i8"),
        ("described_by", "<i8"),
        ("watched_ms", "<i4"),
        ("position_ms", "<i4"),
        ("duration_ms", "<i4"),
        ("device", "<u4"),
        ("season", "<i2"),
        ("episode", "<i2"),
        ("verb", "u1"),
        ("complete", "u1"),
    ]
)
"""One packed interaction; a window is an array of these, ordered by (`start_ms`, `key`)."""

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E37_79B9_7F4A_7C15

UNTOLD: Final = -1
"""Watched time or position of an interaction that no event told it of."""

NO_VERB: Final = 255
"""That of an event that makes no interaction."""

InteractionArray = NDArray[Any]
"""`[N]` of dtype `INTERACTION`."""


class Interaction(NamedTuple):
    """One interaction, field by field as in `INTERACTION`.

    `key` is `sitting_key` of a sitting, hash64 of the event_id for browsing; `described_by` is
    hash64 of the event that the device comes from: the one with the smallest (time, hash).
    Unknown `duration_ms`, `device`, `season` and `episode` are 0.
    """

    start_ms: int
    key: int
    end_ms: int
    title: int
    described_by: int
    watched_ms: int
    position_ms: int
    duration_ms: int
    device: int
    season: int
    episode: int
    verb: int
    complete: int


def carries_state(event: EventFields) -> bool:
    """Whether `event` is part of an interaction; those of other types are only counted."""
    return BY_NAME[event.event_type].verb is not None


def interaction_of(event: EventFields) -> Interaction | None:
    """The interaction that `event` alone amounts to; None for events that carry no state."""
    if not carries_state(event):
        return None
    one = Interaction._make(_reported(event))
    if one.verb != PLAY:
        return one
    return one._replace(key=sitting_key(one.key, one.title, one.season, one.episode))


def interactions_of(events: Iterable[EventFields]) -> InteractionArray:
    """`[E]`: the interaction that each event alone amounts to.

    Of an event that carries no state nothing but the device is told, and the verb `NO_VERB`.
    """
    rows = np.array([_reported(event) for event in events], INTERACTION)
    plays = np.flatnonzero(rows["verb"] == PLAY)
    some = rows[plays]
    rows["key"][plays] = sitting_keys(some["key"], some["title"], some["season"], some["episode"])
    return rows


def _reported(event: Any) -> tuple[int, ...]:
    """The fields of an `Interaction`; the key of a sitting is still the hash of its playback_id."""
    known = BY_NAME[event.event_type]
    device = device_hash(event.device) if event.device else 0
    if known.verb is None:
        return (0, 0, 0, 0, 0, 0, 0, 0, device, 0, 0, NO_VERB, 0)
    at_ms, event_hash = event.occurred_at_ms, hash64(event.event_id)
    if known.shape is Playback:
        return (
            at_ms,
            hash64(event.playback_id),
            at_ms,
            hash64(event.title_id),
            event_hash,
            _ms(event.watched_s, UNTOLD),
            _ms(event.position_s, UNTOLD),
            _ms(event.duration_s, 0),
            device,
            event.season or 0,
            event.episode or 0,
            known.verb,
            int(known.completes),
        )
    is_search = known.shape is Search
    return (
        at_ms,
        event_hash,
        at_ms,
        hash64(event.title_id) if event.title_id else NO_TITLE,
        event_hash,
        UNTOLD,
        UNTOLD,
        0,
        device,
        0 if is_search else event.season or 0,
        0 if is_search else event.episode or 0,
        known.verb,
        0,
    )


def sitting_key(playback: int, title: int, season: int, episode: int) -> int:
    """The key of a sitting, from the hashes of its playback_id and title."""
    return _signed(_key(playback & _MASK, title & _MASK, season << 16 | episode))


def sitting_keys(
    playback: NDArray[np.int64],
    title: NDArray[np.int64],
    season: NDArray[np.integer[Any]],
    episode: NDArray[np.integer[Any]],
) -> NDArray[np.int64]:
    """`sitting_key` of N sittings; all columns are `[N]`."""
    number = season.astype(np.uint64) << np.uint64(16) | episode.astype(np.uint64)
    keys: NDArray[np.uint64] = _key(playback.view(np.uint64), title.view(np.uint64), number)
    return keys.view(np.int64)


def _key(playback: Any, title: Any, number: Any) -> Any:
    return _mixed(playback ^ _mixed(title ^ (number * _GOLDEN & _MASK)))


def _mixed(bits: Any) -> Any:
    """The finaliser of MurmurHash3, of Python's unsigned numbers and of columns of uint64."""
    bits = (bits ^ bits >> 33) * 0xFF51_AFD7_ED55_8CCD & _MASK
    bits = (bits ^ bits >> 33) * 0xC4CE_B9FE_1A85_EC53 & _MASK
    return bits ^ bits >> 33


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def join(a: Interaction, b: Interaction) -> Interaction:
    """The least interaction that covers `a` and `b`, two reports of the same key."""
    return min(a, b, key=_description)._replace(
        end_ms=max(a.end_ms, b.end_ms),
        watched_ms=max(a.watched_ms, b.watched_ms),
        position_ms=max(a.position_ms, b.position_ms),
        duration_ms=max(a.duration_ms, b.duration_ms),
        complete=a.complete | b.complete,
    )


def _description(i: Interaction) -> tuple[int, ...]:
    # The fields behind (time, event) only break the tie of two events that wrongly share one id.
    return (i.start_ms, i.described_by, i.title, i.season, i.episode, i.device, i.verb)


@compiled
def measure(interactions: InteractionArray) -> int:
    """How much is known of these interactions.

    Grows with every join that changes their times, watch time or completion, and never falls. The
    sum over all of a profile's interactions is its `sequence_no`.
    """
    told = np.int64(len(interactions))
    for row in range(len(interactions)):
        one = interactions[row]
        told += one.end_ms - one.start_ms + one.complete
        told += np.int64(one.watched_ms - UNTOLD) + np.int64(one.position_ms - UNTOLD)
    return int(told)


def _ms(seconds: float | None, untold: int) -> int:
    return untold if seconds is None else round(seconds * 1000)
