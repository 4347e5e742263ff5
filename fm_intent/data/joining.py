"""Histories from events as one portable query, the same on every engine.

It says in columns what `stream.domain.interactions`, `actions` and `profile_state` say of one
profile: each event alone is an interaction, reports of one interaction are joined, and what came
before tells its action type. The join is associative, so interactions of days that were joined
before are joined again with those of other days, whatever order they come in.
"""

from __future__ import annotations

from typing import Any, Final

import ibis
import pyarrow as pa
from ibis import ifelse, literal

from fm_intent.data.contract import EVENTS_SCHEMA
from fm_intent.data.identities import IDENTITIES
from stream.domain.event_types import ACTION_OF_VERB, BY_NAME, EVENT_TYPES, PLAY, Playback, Search
from stream.domain.interactions import UNTOLD
from stream.domain.labels import ACTIONS
from stream.domain.progress import FINISHED_SHARE, SHARE_STEPS

_VERBS: Final = tuple((one.name, one.verb) for one in EVENT_TYPES if one.verb is not None)
_SITTING: Final = tuple(one.name for one in EVENT_TYPES if one.shape is Playback)
_UNTITLED: Final = tuple(one.name for one in EVENT_TYPES if one.shape is Search)
_COMPLETING: Final = tuple(one.name for one in EVENT_TYPES if one.completes)

_ACTIONS: Final = tuple((verb, ACTIONS.index(name)) for verb, name in ACTION_OF_VERB.items())

_DESCRIPTION: Final = ("start_ms", "described_by", "title", "season", "episode", "device", "verb")
"""Of the event that describes an interaction: the one whose tuple is the smallest."""

_MAXIMA: Final = ("end_ms", "watched_ms", "position_ms", "duration_ms", "complete")


@ibis.udf.scalar.builtin(  # type: ignore[untyped-decorator]
    name="identities",
    signature=(("string",) * 4 + ("int64",) * 2, ibis.dtype(pa.struct(list(IDENTITIES.items())))),
)
def _identities(
    event_id: Any, playback_id: Any, title_id: Any, device: Any, season: Any, episode: Any
) -> Any: ...


def faults(events: ibis.Table) -> ibis.Table:
    """How many events have no interaction that they could be part of, by fault: one row."""
    e = _of_contract(events)
    plays, untitled = e.event_type.isin(_SITTING), e.event_type.isin(_UNTITLED)
    found = {
        "without an id": e.event_id.isnull(),
        "without a profile": e.profile_id.isnull(),
        "without a time": e.occurred_at_ms.isnull() | (e.occurred_at_ms < 0),
        "of an unknown type": e.event_type.isnull() | e.event_type.notin(tuple(BY_NAME)),
        "without a title": e.title_id.isnull() & ~untitled,
        "without a playback_id": e.playback_id.isnull() & plays,
    }
    return e.aggregate(
        **{fault: has.cast("int64").sum().fill_null(0) for fault, has in found.items()}
    )


def interactions(events: ibis.Table) -> ibis.Table:
    """What each event alone amounts to, as `interaction_of` has it; reports are not joined yet.

    Args:
        events: in the columns of `EVENTS_SCHEMA`; those that may be null may be missing.
    """
    e = _of_contract(events)
    e = e.filter(e.event_type.isin([name for name, _ in _VERBS]))
    plays, untitled = e.event_type.isin(_SITTING), e.event_type.isin(_UNTITLED)

    def of_plays(value: ibis.Value, otherwise: int) -> ibis.Value:
        return ifelse(plays, value, otherwise).fill_null(otherwise)

    e = e.select(
        "event_id",
        "profile_id",
        "title_id",
        "device",
        playback_id=ifelse(plays, e.playback_id, ibis.null("string")),
        season=ifelse(untitled, 0, e.season.cast("int64")).fill_null(0),
        episode=ifelse(untitled, 0, e.episode.cast("int64")).fill_null(0),
        at_ms=e.occurred_at_ms,
        verb=e.event_type.cases(*_VERBS).cast("int64"),
        watched_ms=of_plays(_ms(e.watched_s), UNTOLD),
        position_ms=of_plays(_ms(e.position_s), UNTOLD),
        duration_ms=of_plays(_ms(e.duration_s), 0),
        complete=e.event_type.isin(_COMPLETING).cast("int64"),
    )
    who = _identities(e.event_id, e.playback_id, e.title_id, e.device, e.season, e.episode)
    e = e.mutate(who=who)
    return e.select(
        "profile_id",
        *("season", "episode", "verb", "watched_ms", "position_ms", "duration_ms", "complete"),
        start_ms=e.at_ms,
        end_ms=e.at_ms,
        **{name: e.who[name] for name in IDENTITIES},
    )


def joined(reports: ibis.Table) -> ibis.Table:
    """One row for each interaction of each profile: the join of its reports."""
    description = ibis.struct({name: reports[name] for name in _DESCRIPTION})
    found = reports.group_by("profile_id", "key").aggregate(
        description=description.min(), **{name: reports[name].max() for name in _MAXIMA}
    )
    return found.select(
        "profile_id",
        "key",
        *_MAXIMA,
        **{name: found.description[name] for name in _DESCRIPTION},
    )


def histories(joined: ibis.Table, durations: ibis.Table) -> ibis.Table:
    """All interactions by profile, start and key, in the columns of a history.

    Args:
        joined: as `joined` gives them.
        durations: `title` and `usual_ms`, of titles whose sitting the catalogue knows to last so.
    """
    i = joined.left_join(durations, "title")
    plays = i.verb == PLAY
    i = i.mutate(
        duration_ms=ifelse(i.duration_ms == 0, i.usual_ms.fill_null(0), i.duration_ms),
        watched_ms=ifelse((i.watched_ms <= 0) & (i.position_ms > 0), i.position_ms, i.watched_ms),
        plays=plays,
    )
    known = i.plays & (i.duration_ms > 0) & (i.watched_ms != UNTOLD)
    share = i.watched_ms.cast("float64") / ifelse(i.duration_ms > 0, i.duration_ms, 1)
    share = ibis.least(share, literal(1.0, "float64"))
    i = i.mutate(watched_share=ifelse(known, share, literal(-1.0, "float64")).cast("float32"))
    # Serving multiplies numbers of 32 bits here, and so do we: it decides what counts as finished.
    counted = ifelse(i.complete == 1, literal(1.0, "float32"), i.watched_share)
    counted = ibis.greatest(counted, literal(0.0, "float32"))
    steps = (counted * literal(float(SHARE_STEPS), "float32")).floor().cast("int64")
    i = i.mutate(progress=(i.season * (1 << 31)) + (i.episode * (1 << 16)) + steps)
    earlier = ibis.window(
        group_by=[i.profile_id, i.title, i.plays],
        order_by=[i.start_ms, i.key],
        preceding=(None, 1),
    )
    i = i.mutate(before=i.progress.max().over(earlier))
    episode, furthest = i.progress >> 16, i.before >> 16
    finished = i.before % (1 << 16) >= literal(FINISHED_SHARE * SHARE_STEPS, "float64")
    goes_on = (episode > furthest) | ((episode == furthest) & ~finished)
    action = ibis.cases(
        (~i.plays, i.verb.cases(*_ACTIONS)),
        (i.before.isnull(), ACTIONS.index(ACTION_OF_VERB[PLAY])),
        (goes_on, ACTIONS.index("continue")),
        else_=ACTIONS.index("rewatch"),
    )
    i = i.select(
        "profile_id",
        "start_ms",
        "key",
        "watched_share",
        title_hash=i.title,
        action=action.cast("int8"),
        device=i.device,
        watched_ms=i.watched_ms.cast("int32"),
    )
    return i.order_by("profile_id", "start_ms", "key").drop("key")


def _of_contract(events: ibis.Table) -> ibis.Table:
    kinds = ibis.Schema.from_pyarrow(EVENTS_SCHEMA)
    return events.select(
        **{
            name: events[name].cast(kind(nullable=True))
            if name in events.columns
            else ibis.null(kind)
            for name, kind in kinds.items()
        }
    )


def _ms(seconds: ibis.Value) -> ibis.Value:
    """Whole milliseconds, halves to the even one, as Python rounds."""
    exact = seconds.cast("float64") * 1000.0
    down = exact.floor().cast("int64")
    rest = exact - down.cast("float64")
    up = (rest > 0.5) | ((rest == 0.5) & (down % 2 == 1))
    return down + up.cast("int64")
