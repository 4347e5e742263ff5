"""Hypothesis strategies for events of one profile."""

from __future__ import annotations

from hypothesis import strategies as st

from stream.domain.event_types import Browse, Event, Playback, Search

PROFILE = "profile-1"

_times = st.integers(min_value=1_000, max_value=3_000)
_titles = st.sampled_from(["t1", "t2", "t3"])
_devices = st.sampled_from([None, "tv", "mobile", "toaster"])


def _with_id(event: Event, number: int) -> Event:
    return event.model_copy(update={"event_id": f"e{number}"})


_playback = st.builds(
    Playback,
    event_id=st.just("e"),
    profile_id=st.just(PROFILE),
    occurred_at_ms=_times,
    device=_devices,
    event_type=st.sampled_from(["play_start", "play_progress", "play_stop", "play_complete"]),
    title_id=_titles,
    playback_id=st.sampled_from([f"sitting-{n}" for n in range(8)]),
    watched_s=st.one_of(st.none(), st.floats(0, 100)),
    position_s=st.one_of(st.none(), st.floats(0, 100)),
    duration_s=st.sampled_from([None, 100.0]),
    season=st.sampled_from([None, 1]),
    episode=st.sampled_from([None, 1, 2]),
)
_browse = st.builds(
    Browse,
    event_id=st.just("e"),
    profile_id=st.just(PROFILE),
    occurred_at_ms=_times,
    device=_devices,
    event_type=st.sampled_from(["impression", "title_open", "trailer_play", "list_add"]),
    title_id=_titles,
)
_search = st.builds(
    Search,
    event_id=st.just("e"),
    profile_id=st.just(PROFILE),
    occurred_at_ms=_times,
    event_type=st.just("search"),
)

histories = st.lists(st.one_of(_playback, _browse, _search), max_size=30).map(
    lambda events: [_with_id(event, number) for number, event in enumerate(events)]
)
"""Events of one profile, each with an id of its own, few enough to fit one window."""
