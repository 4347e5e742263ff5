"""A profile's window as one reads it: what was done with which title, session by session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream.domain.actions import action_types
from stream.domain.interactions import Interaction
from stream.domain.labels import ACTIONS, NO_TITLE, device_hash
from stream.domain.progress import watched_share

if TYPE_CHECKING:
    from collections.abc import Iterable

    from intentstream.console.titles import Title, Titles
    from stream.domain.profile_state import ProfileState
    from stream.domain.rules import Rules


@dataclass(frozen=True, slots=True)
class Step:
    """One interaction. Times are Unix milliseconds."""

    key: str
    """The same for as long as it is the same interaction."""
    action: str
    title: Title | None
    """None where it names none, as a search, or one that no catalogue here has."""
    start_ms: int
    end_ms: int
    share: float | None
    """Watched of a play, 0 to 1; None where nobody knows."""
    complete: bool
    season: int | None
    episode: int | None
    device: str | None
    begins_session: bool
    """Whether more idle time than a session bears lies before it."""


def timeline(
    state: ProfileState, rules: Rules, gap_s: int, titles: Titles, devices: Iterable[str]
) -> list[Step]:
    """The steps of a window, oldest first.

    Args:
        state: the profile's.
        rules: what tells watched shares and actions, as they do in the worker.
        gap_s: idle time that ends a session.
        titles: names.
        devices: names that may be met; state keeps only their hashes.
    """
    actions = action_types(state.memory, state.window, rules).tolist()
    shares = watched_share(state.window, rules).tolist()
    device_of = {device_hash(name): name for name in devices}
    steps: list[Step] = []
    busy_until = 0
    for row, action, share in zip(state.window, actions, shares, strict=True):
        one = Interaction._make(row.item())
        begins = not steps or one.start_ms - busy_until > gap_s * 1000
        busy_until = max(busy_until, one.end_ms)
        steps.append(
            Step(
                key=f"{one.key & 0xFFFF_FFFF_FFFF_FFFF:016x}",
                action=ACTIONS[action],
                title=None if one.title == NO_TITLE else titles.of_hash(one.title),
                start_ms=one.start_ms,
                end_ms=one.end_ms,
                share=None if share < 0 else share,
                complete=bool(one.complete),
                season=one.season or None,
                episode=one.episode or None,
                device=device_of.get(one.device),
                begins_session=begins,
            )
        )
    return steps
