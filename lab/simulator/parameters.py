"""Parameters of the simulator of members: everything that shapes its output, and the seed."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class SimulatorParameters:
    """What the simulated members are like. Equal parameters give equal histories."""

    seed: int = 1
    members: int = 6_000
    days: int = 90
    first_day: dt.date = dt.date(2021, 6, 28)
    """The catalogue's last title arrives 89 days later."""

    # Sessions
    sessions_per_day: float = 0.4
    """Mean over members; a member's own rate is drawn from a gamma distribution of shape 2."""
    picks_per_session: float = 3.2
    """Mean number of picks (each of a title, or of a search and a title) in a session."""
    longest_session_s: float = 3 * 3600.0
    """After this no new pick is made; a film that has begun may end later."""

    # The hidden intent
    action_weights: dict[str, float] = field(
        default_factory=lambda: {
            "discover": 0.44,
            "continue": 0.24,
            "rewatch": 0.08,
            "trailer": 0.04,
            "open": 0.05,
            "search": 0.10,
            "list": 0.05,
        }
    )
    """How often an intent is about each action type, before a member's own leaning."""
    intent_persistence: float = 0.7
    """Probability that each part of an intent carries over to the member's next session."""
    intent_switch: float = 0.1
    """Probability that between two picks of a session the whole intent is drawn anew."""
    intent_strength: float = 0.85
    """Probability that a pick follows its intent's action type and not the member's leaning."""
    genre_pull: float = 4.0
    kind_pull: float = 3.0
    age_pull: float = 3.5
    """Log-odds of a title of the intended genre, kind or release age over one of another."""

    # Titles
    taste_dimensions: int = 16
    taste_pull: float = 1.2
    """Log-odds of a title per standard deviation of its fit to the member's taste."""
    popularity_spread: float = 1.2
    """Standard deviation of a title's log popularity."""
    arrival_pull: float = 2.0
    arrival_days: float = 14.0
    """Log-odds of a title on the day that it, or its new season, arrives; and their decay time."""
    list_pull: float = 4.0
    """Log-odds of a title on the member's list."""
    new_season: float = 0.15
    """Probability that a show's last season arrives while the members are watched."""
    weekly: float = 0.4
    """Probability that a season that arrives meanwhile comes one episode a week."""

    # Going on with a title
    held_genre_pull: float = 2.5
    held_kind_pull: float = 2.0
    """As above, among the titles that a member may go on with or watch again."""
    held_days: float = 3.0
    """A title left for so many days is as much less likely to be gone on with as e is above 1."""
    fresh_pull: float = 2.0
    """Log-odds of a title with an episode that has come since the member last watched it."""
    fresh_action: float = 0.25
    """Probability that such an episode makes a pick one of going on, whatever the intent."""

    # Watching
    binge: float = 0.45
    """Mean probability that a finished episode is followed by the next at once."""
    abandon: float = 0.22
    """Probability that a title of average fit is given up."""
    pause_mean: float = 0.5
    heartbeat_s: float = 600.0
    """Watched seconds between two `play_progress` events."""

    def null_twin(self) -> SimulatorParameters:
        """The same members without session intents.

        Every pick draws its intent afresh from the member's long-run mixture, so that what a
        session has shown says nothing of the next pick.
        """
        return replace(self, intent_persistence=0.0, intent_switch=1.0)
