"""What one sitting is, and what is known of how much of it was watched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.domain.event_types import Event, Playback
from stream.domain.interactions import sitting_key, sitting_keys
from stream.domain.labels import hash64
from stream.domain.profile_state import ProfileState, state_of
from stream.domain.progress import watched_share
from stream.domain.rules import Durations, Rules
from stream.domain.window import window_batch

RULES = Rules(durations=Durations({hash64("t1"): 100_000}))
_int64 = st.integers(-(1 << 63), (1 << 63) - 1)
_number = st.integers(0, 32_767)


def step(number: int, **fields: Any) -> Event:
    return Playback(
        **{
            "event_id": f"e{number}",
            "profile_id": "p",
            "occurred_at_ms": 1_000 * number,
            "event_type": "play_progress",
            "title_id": "t1",
            "playback_id": "one session of the player",
        }
        | fields
    )


def state(*steps: dict[str, Any]) -> ProfileState:
    return state_of((step(number, **fields) for number, fields in enumerate(steps)), RULES)


def test_a_player_that_goes_on_to_another_title_begins_another_sitting() -> None:
    window = state({"title_id": "t1"}, {"title_id": "t2"}, {"title_id": "t1"}).window
    assert window["title"].tolist() == [hash64("t1"), hash64("t2")]


@pytest.mark.parametrize("name", ["season", "episode"])
def test_a_player_that_goes_on_to_another_episode_begins_another_sitting(name: str) -> None:
    window = state({name: 1}, {name: 2}, {name: 2}).window
    assert window[name].tolist() == [1, 2]


@given(st.lists(st.tuples(_int64, _int64, _number, _number), min_size=1))
def test_keys_in_columns_are_the_keys_one_by_one(
    sittings: list[tuple[int, int, int, int]],
) -> None:
    playback, title, season, episode = (np.array(column) for column in zip(*sittings, strict=True))
    keys = sitting_keys(playback, title, season.astype("<i2"), episode.astype("<i2"))
    assert keys.tolist() == [sitting_key(*one) for one in sittings]


@pytest.mark.parametrize(
    ("steps", "share"),
    [
        ([{"position_s": 40.0}, {"position_s": 97.0}, {"position_s": 12.0}], 0.97),
        ([{"position_s": 97.0, "watched_s": 20.0}], 0.2),
        ([{"watched_s": 0.0, "position_s": 0.0}, {"position_s": 97.0}], 0.97),
        ([{}], -1.0),
        ([{"position_s": 0.0}], -1.0),
        ([{"watched_s": 0.0}], 0.0),
        ([{"position_s": 140.0}], 1.0),
    ],
)
def test_the_furthest_position_counts_where_no_watch_time_is_told(
    steps: list[dict[str, Any]], share: float
) -> None:
    (found,) = watched_share(state(*steps).window, RULES)
    assert found == pytest.approx(share)


def test_a_film_that_was_watched_by_its_position_is_watched_again_afterwards() -> None:
    batch = window_batch(
        [("p", state({"position_s": 97.0}, {"playback_id": "another session"}))], RULES
    )
    assert batch.action.tolist() == [[0, 2]]


def test_a_share_goes_by_what_is_known_of_durations_now() -> None:
    rules = Rules(durations=Durations())
    window = state({"position_s": 50.0}).window
    assert watched_share(window, rules).tolist() == [-1.0]
    for duration_ms, share in ((100_000, 0.5), (50_000, 1.0)):
        rules.durations.take({hash64("t1"): duration_ms})
        assert watched_share(window, rules).tolist() == [share]
