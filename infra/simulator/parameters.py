"""Parameters of the simulator of members: everything that shapes its output, and the seed."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SimulatorParameters:
    """What the simulated members are like. Equal parameters give equal files."""

    seed: int = 1
    members: int = 2_000
    days: int = 60
    first_day: dt.date = dt.date(2021, 8, 1)

    # Sessions and their hidden intent
    sessions_per_day: float = 0.6
    """Mean over members; a member's own rate is drawn from a gamma distribution of shape 2."""
    action_weights: dict[str, float] = field(
        default_factory=lambda: {
            "discover": 0.30,
            "continue": 0.36,
            "rewatch": 0.10,
            "trailer": 0.04,
            "open": 0.05,
            "search": 0.10,
            "list": 0.05,
        }
    )
    """How often a session is about each action type, before a member's own leaning."""
    intent_persistence: float = 0.6
    """Probability that each part of an intent carries over to the member's next session."""
    intent_strength: float = 0.85
    """Probability that one pick within a session follows its intent's action type."""
    picks_per_session: float = 2.4
    """Mean number of picks (each of a title, or of a search and a title) in a session."""
    longest_session_s: float = 3 * 3600.0
    """After this no new pick is made; a film that has begun may end later."""

    # Taste
    taste_dimensions: int = 16
    taste_weight: float = 1.2
    """How much of a choice from a shelf is taste and not chance."""
    shelf_length: int = 24
    shelf_seen: int = 6
    """Titles on a shelf, and how many of them the member sees (impressions)."""

    # Watching
    binge: float = 0.55
    """Mean probability that a finished episode is followed by the next at once."""
    abandon: float = 0.18
    """Probability that a title of average fit is given up."""
    pause_mean: float = 0.5
    heartbeat_s: float = 300.0
    """Watched seconds between two `play_progress` events."""
