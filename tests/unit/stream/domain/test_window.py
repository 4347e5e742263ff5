"""What the model is sent of windows."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from stream.domain.event_types import Event, Playback, Search
from stream.domain.labels import NO_TITLE, hash64
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules
from stream.domain.version_labels import BUILT_IN
from stream.domain.window import (
    WindowBatch,
    joined_windows,
    window_batch,
)

RULES = Rules()


def play(number: int, at_s: int, end_s: int | None = None) -> list[Event]:
    steps = [(at_s, "play_start")] + ([(end_s, "play_stop")] if end_s is not None else [])
    return [
        Playback.model_validate(
            {
                "event_id": f"e{number}-{kind}",
                "profile_id": "p",
                "occurred_at_ms": at * 1000,
                "event_type": kind,
                "title_id": f"t{number}",
                "playback_id": f"s{number}",
                "watched_s": 25.0,
                "duration_s": 100.0,
                "device": "tv",
            }
        )
        for at, kind in steps
    ]


def test_windows_are_padded_on_the_right_to_the_longest() -> None:
    one, two = state_of(play(1, 1), RULES), state_of(play(1, 1) + play(2, 2), RULES)
    batch = window_batch([("a", one), ("b", two)], RULES)
    assert batch.length.tolist() == [[1], [2]]
    assert batch.title_hash.tolist() == [[hash64("t1"), 0], [hash64("t1"), hash64("t2")]]
    assert batch.watched_share.tolist() == [[0.25, -1.0], [0.25, 0.25]]
    assert batch.numbered(BUILT_IN).device.tolist() == [[1, 0], [1, 1]]
    assert batch.profile_hash.tolist() == [[hash64("a")], [hash64("b")]]


def test_a_search_is_sent_without_a_title() -> None:
    search = Search(event_id="e", profile_id="p", occurred_at_ms=1, event_type="search")
    batch = window_batch([("p", state_of([search], RULES))], RULES)
    assert batch.title_hash.tolist() == [[NO_TITLE]]
    assert np.isclose(batch.watched_share, -1).all()


def test_joined_windows_are_those_of_all_profiles_together() -> None:
    short = [("a", state_of(play(1, 1), Rules()))]
    long = [("b", state_of([*play(2, 5), *play(3, 9)], Rules())), ("c", short[0][1])]
    together = window_batch([*short, *long], Rules())
    found = joined_windows([window_batch(short, Rules()), window_batch(long, Rules())])
    for column in fields(WindowBatch):
        one, other = getattr(found, column.name), getattr(together, column.name)
        np.testing.assert_array_equal(one, other, err_msg=column.name)
        assert one.dtype == other.dtype
