from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.screenshots import of_today

NOW_MS = 1_700_000_000_000
times = st.lists(st.integers(0, 10**12), min_size=1, max_size=50).map(sorted)


@given(times)
def test_what_a_member_did_fits_into_the_day_before_now_in_its_order(times: list[int]) -> None:
    events = [{"event_id": str(at), "occurred_at_ms": time} for at, time in enumerate(times)]
    moved = of_today(events, NOW_MS)
    assert [event["event_id"] for event in moved] == [event["event_id"] for event in events]
    at = [event["occurred_at_ms"] for event in moved]
    assert at == sorted(at)
    assert at[-1] == NOW_MS - 60_000
    assert at[0] > NOW_MS - 24 * 3600 * 1000


def test_a_gap_within_a_session_stays() -> None:
    events = [{"occurred_at_ms": 0}, {"occurred_at_ms": 90_000}]
    first, last = of_today(events, NOW_MS)
    assert last["occurred_at_ms"] - first["occurred_at_ms"] == 90_000
