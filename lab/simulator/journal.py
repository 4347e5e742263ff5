"""From what happened to the events that a player and an app would have sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fm_intent.data import contract
from lab.simulator.choices import NONE
from lab.simulator.hidden_truth import TRUTH_SCHEMA
from lab.simulator.members import COUNTRIES, DAY_S
from lab.simulator.parts import PARTS
from stream.domain.labels import DEVICES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lab.simulator.parameters import SimulatorParameters
    from lab.simulator.simulation import Lives, Rows
    from lab.simulator.simulator_catalogue import SimulatorCatalogue


def events(
    parameters: SimulatorParameters,
    catalogue: SimulatorCatalogue,
    lives: Lives,
    country: NDArray[np.int64],
) -> pa.Table:
    """All events in the contract on disk; their ids number them in order of time.

    Args:
        parameters: The simulation's.
        catalogue: The simulation's.
        lives: What happened.
        country: Index into `COUNTRIES` of every member.
    """
    sittings = lives.sittings
    happened = pa.concat_tables(
        [
            _playback(sittings, catalogue.duration_T[sittings["title"]], parameters.heartbeat_s),
            _browse(lives.browsing, catalogue),
        ],
        promote_options="default",
    )
    at_ms = at_unix_ms(catalogue, happened["at_s"].to_numpy())
    # Within a millisecond: by member, then as it happened.
    order = np.lexsort((np.arange(len(at_ms)), happened["member"].to_numpy(), at_ms))
    happened = happened.take(pa.array(order))
    member = happened["member"]
    given = {name: happened[name] for name in _GIVEN}
    return contract.table(
        contract.EVENTS_SCHEMA,
        given
        | {
            "event_id": _numbered("sim-e", pa.array(np.arange(len(order))), 9),
            "profile_id": profile_ids(member),
            "occurred_at_ms": pa.array(at_ms[order]),
            "title_id": pa.array(catalogue.title_ids).take(happened["title"]),
            "playback_id": _numbered("sim-p", happened["sitting"], 8),
            "device": pa.array(DEVICES).take(happened["device"]),
            "country": pa.array(COUNTRIES).take(pa.array(country[member.to_numpy()])),
        },
    )


_GIVEN: Final = (
    "event_type",
    "watched_s",
    "position_s",
    "duration_s",
    "season",
    "episode",
    "query",
)


def truth(catalogue: SimulatorCatalogue, spells: Rows) -> pa.Table:
    """One row per spell of an intent, by `TRUTH_SCHEMA`, ordered by member and time."""
    rows = pa.table(
        {
            "profile_id": profile_ids(pa.array(spells["member"])),
            "from_ms": pa.array(at_unix_ms(catalogue, spells["from_s"])),
            "to_ms": pa.array(at_unix_ms(catalogue, spells["to_s"])),
            **{
                name: pa.array(labels).take(pa.array(spells[name]))
                for name, labels in PARTS.items()
            },
        },
        schema=TRUTH_SCHEMA,
    )
    return rows.sort_by([("profile_id", "ascending"), ("from_ms", "ascending")])


def profile_ids(members: pa.Array) -> pa.Array:
    """The ids of members, by their numbers."""
    return _numbered("sim-m", members, 6)


def member_number(profile_id: str) -> int:
    """The number of the member with this id."""
    return int(profile_id.removeprefix("sim-m"))


def at_unix_ms(catalogue: SimulatorCatalogue, at_s: NDArray[Any]) -> NDArray[np.int64]:
    """Unix milliseconds of seconds since the first day."""
    return np.round((catalogue.first_day * DAY_S + at_s) * 1000).astype(np.int64)


def _playback(sittings: Rows, duration_s: NDArray[np.float64], heartbeat_s: float) -> pa.Table:
    """Each sitting's start, heartbeats, pauses, resumes and end, at their watched seconds."""
    watched = sittings["watched_s"]
    every = np.arange(len(watched))
    pause_at, pause_s = sittings["pause_at_s"], sittings["pause_s"]
    beats = np.ceil(watched / heartbeat_s).astype(np.int64) - 1
    beating = np.repeat(every, beats)
    beat = np.arange(len(beating)) - np.repeat(np.cumsum(beats) - beats, beats) + 1
    paused, which = np.nonzero(pause_s)
    at_pause = pause_at[paused, which]
    nothing = np.zeros(len(every))
    ends = np.where(sittings["complete"], "play_complete", "play_stop").astype(object)
    kinds = (
        # type, sitting, watched seconds, whether a pause that begins there is already over
        (np.full(len(every), "play_start", dtype=object), every, nothing, False),
        (np.full(len(beating), "play_progress", object), beating, beat * heartbeat_s, False),
        (np.full(len(paused), "play_pause", object), paused, at_pause, False),
        (np.full(len(paused), "play_resume", object), paused, at_pause, True),
        (ends, every, watched, True),
    )
    tables = []
    for event_type, sitting, seconds, resumed in kinds:
        before = (
            pause_at[sitting] <= seconds[:, None]
            if resumed
            else (pause_at[sitting] < seconds[:, None])
        )
        stood_still = np.where(before, pause_s[sitting], 0.0).sum(1)
        tables.append(
            pa.table(
                {
                    "event_type": pa.array(event_type, pa.string()),
                    "at_s": sittings["at_s"][sitting] + seconds + stood_still,
                    "member": sittings["member"][sitting],
                    "title": sittings["title"][sitting],
                    "device": sittings["device"][sitting],
                    "sitting": sitting,
                    "watched_s": seconds,
                    "position_s": (sittings["position_s"][sitting] + seconds).round(1),
                    "duration_s": duration_s[sitting],
                    "season": _unless_zero(sittings["season"][sitting]),
                    "episode": _unless_zero(sittings["episode"][sitting]),
                }
            )
        )
    return pa.concat_tables(tables)


def _browse(browsing: Rows, catalogue: SimulatorCatalogue) -> pa.Table:
    searched = browsing["query_for"] != NONE
    queries = np.full(len(searched), None, dtype=object)
    queries[searched] = [_query(name) for name in catalogue.names[browsing["query_for"][searched]]]
    return pa.table(
        {
            "event_type": pa.array(browsing["event_type"], pa.string()),
            "at_s": browsing["at_s"],
            "member": browsing["member"],
            "title": pa.array(browsing["title"], mask=searched),
            "device": browsing["device"],
            "query": pa.array(queries, pa.string()),
        }
    )


def _query(name: str) -> str:
    """What a member types who looks for a title: its first two words."""
    return " ".join(name.lower().split()[:2])


def _numbered(prefix: str, numbers: pa.Array, width: int) -> pa.Array:
    padded = pc.utf8_lpad(numbers.cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, padded, "")


def _unless_zero(numbers: NDArray[np.int64]) -> pa.Array:
    return pa.array(numbers.astype(np.int32), mask=numbers == 0)
