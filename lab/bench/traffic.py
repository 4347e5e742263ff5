"""What the benchmark of a worker sends, by name; each follows from its size and a point in time.

- `new`: each event is a new interaction, of profiles in random order that nobody knew before.
- `members`: the simulator's members from their first day on, in order of time: impressions,
  heartbeats and all. Gaps in event time stay as they are, so that sessions are sessions; only the
  pace is another.
- `many`: new interactions, in random order, of many profiles that have full windows. Their states
  are those of simulated members after ninety days, the same ones again and again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
import pyarrow.compute as pc

from lab.replay.plan import json_objects
from lab.simulator.output import generate
from lab.simulator.parameters import SimulatorParameters
from stream.domain import codec
from stream.domain.event_types import BY_NAME, Event, event_of
from stream.domain.profile_state import ProfileState
from stream.domain.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TITLES: Final = 3_000
NEW_PROFILES: Final = 5_000
MEMBERS: Final = 2_000
MANY_PROFILES: Final = 50_000

_EVENTS_A_DAY: Final = 11
"""Of a simulated member, some fewer than there are in the mean."""

_LONGTIME: Final = SimulatorParameters(members=60)


class EventRecord(NamedTuple):
    """An event as it is sent."""

    topic: str
    """Without the prefix."""
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Traffic:
    """Events, and what is known of their profiles before.

    Attributes:
        events: in the order of sending.
        states: encoded, by profile.
    """

    events: list[Event]
    states: Mapping[str, bytes] = field(default_factory=dict)

    def records(self) -> Iterable[EventRecord]:
        """The events as they are sent."""
        for event in self.events:
            value = orjson.dumps(event.model_dump(exclude_none=True))
            yield EventRecord(BY_NAME[event.event_type].topic, event.profile_id.encode(), value)

    def expected(self) -> dict[str, int]:
        """The `sequence_no` of each profile's features once all is taken in; 0: it has none."""
        states: dict[str, ProfileState] = {}
        rules = Rules()
        for event in self.events:
            name = event.profile_id
            if name not in states:
                known = self.states.get(name)
                states[name] = codec.decode(known) if known else ProfileState()
            states[name].apply(event, rules)
        return {name: state.sequence_no for name, state in states.items()}


def look(number: int, profile_id: str, at_ms: int) -> dict[str, Any]:
    """A look at a title, as an event's fields; each number's is another interaction."""
    return {
        "event_id": f"{profile_id}-{number}",
        "profile_id": profile_id,
        "event_type": "title_open",
        "occurred_at_ms": at_ms,
        "title_id": f"title-{number * 7 % TITLES}",
    }


def looks(events: int, profiles: int, now_ms: int) -> list[Event]:
    """Looks of profiles in random order, a millisecond after another, the last one now."""
    chance = random.Random(0)  # noqa: S311 - reproducible, and no secret
    return [
        event_of(look(number, f"profile-{chance.randrange(profiles)}", now_ms - events + number))
        for number in range(1, events + 1)
    ]


def simulated(
    parameters: SimulatorParameters, now_ms: int, events: int | None = None
) -> list[Event]:
    """The first events of simulated members, or all of them; the last one happens now."""
    table = generate(parameters).events[:events]
    by_ms = now_ms - pc.max(table["occurred_at_ms"]).as_py()
    return [
        event_of(fields | {"occurred_at_ms": fields["occurred_at_ms"] + by_ms})
        for fields in json_objects(table)
    ]


def new(events: int, now_ms: int) -> Traffic:
    """Of profiles that nobody knew."""
    return Traffic(looks(events, NEW_PROFILES, now_ms))


def members(events: int, now_ms: int) -> Traffic:
    """Of simulated members."""
    days = 1 + ceil(events / MEMBERS / _EVENTS_A_DAY)
    return Traffic(simulated(SimulatorParameters(members=MEMBERS, days=days), now_ms, events))


def many(events: int, now_ms: int) -> Traffic:
    """Of profiles with full windows."""
    states: dict[str, ProfileState] = {}
    # Whatever is sent comes behind it.
    for event in simulated(_LONGTIME, now_ms - events):
        states.setdefault(event.profile_id, ProfileState()).apply(event, Rules())
    full = [codec.encode(state) for state in states.values() if len(state.dropped)]
    known = {f"profile-{number}": full[number % len(full)] for number in range(MANY_PROFILES)}
    return Traffic(looks(events, MANY_PROFILES, now_ms), known)


TRAFFICS: Final[dict[str, Callable[[int, int], Traffic]]] = {
    "new": new,
    "members": members,
    "many": many,
}
"""Makes each, of a number of events and the time that is now, Unix milliseconds."""
