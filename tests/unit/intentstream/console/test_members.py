from __future__ import annotations

import asyncio

import pytest

from intentstream.console.members import MOMENTS, MOST_MINUTES, Members
from tests.unit.features.samples import sample, to_json

MINUTE_MS = 60_000


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def taken(members: Members, profile_id: str, **changes: object) -> None:
    row = sample(profile_id=profile_id, **changes)
    members.take_row(profile_id.encode(), to_json(row))


def active(members: Members) -> list[str]:
    return [profile_id for profile_id, _ in members.active(10)]


def test_who_was_published_last_comes_first() -> None:
    members = Members()
    for profile_id in ("a", "b", "a"):
        taken(members, profile_id)
    assert active(members) == ["a", "b"]


def test_who_was_active_longest_ago_makes_room() -> None:
    members = Members(most=2)
    for profile_id in ("a", "b", "c"):
        taken(members, profile_id)
    assert active(members) == ["c", "b"]
    assert len(members) == 2


def test_of_one_member_so_many_moments_are_kept() -> None:
    members = Members()
    for number in range(2 * MOMENTS):
        taken(members, "a", sequence_no=number)
    known = members.get("a")
    assert known is not None
    assert [moment.sequence_no for moment in known.moments] == [*range(MOMENTS, 2 * MOMENTS)]


def test_an_erased_member_is_gone() -> None:
    members = Members()
    taken(members, "a")
    members.take_row(b"a", None)
    assert active(members) == []
    assert members.get("a") is None


@pytest.mark.parametrize("value", [b"", b"no json", b"[]", b"{}", b'{"intent_cluster": "x"}'])
def test_what_is_no_row_is_passed_over(value: bytes) -> None:
    members = Members()
    members.take_row(b"a", value)
    assert len(members) == 0


def test_who_has_a_state_alone_is_not_active() -> None:
    members = Members()
    members.take_state(b"a", b"state")
    assert active(members) == []
    known = members.get("a")
    assert known is not None
    assert known.state == b"state"


async def _heard(members: Members, *, of: str) -> bool:
    with members.watched(of) as watch:
        taken(members, "a")
        taken(members, "a")
        first, second = await watch.news(0.01), await watch.news(0.01)
    assert not second
    return first


def test_what_came_meanwhile_is_one_piece_of_news() -> None:
    assert asyncio.run(_heard(Members(), of="a"))


def test_nobody_hears_of_others() -> None:
    assert not asyncio.run(_heard(Members(), of="b"))


def test_an_event_is_answered_by_the_row_that_names_it() -> None:
    clock = Clock()
    members = Members(clock=clock)
    members.wait_for("a", "act-1")
    clock.s = 0.02
    taken(members, "a", last_event_id="another")
    assert members.answered("a") is None
    clock.s = 0.03
    taken(members, "a", last_event_id="act-1")
    answer = members.answered("a")
    assert answer is not None
    assert answer.event_id == "act-1"
    assert answer.ms == pytest.approx(30)
    assert members.answered("b") is None


def test_a_minute_counts_each_member_once_in_a_cluster() -> None:
    members = Members()
    for profile_id, cluster in (("a", 1), ("a", 1), ("b", 1), ("a", 2)):
        taken(members, profile_id, intent_cluster=cluster, published_at_ms=5 * MINUTE_MS)
    taken(members, "a", intent_cluster=2, published_at_ms=6 * MINUTE_MS)
    told = [(one.minute_ms, one.cluster, one.members, one.rows) for one in members.segments]
    assert told == [
        (5 * MINUTE_MS, 1, 2, 3),
        (5 * MINUTE_MS, 2, 1, 1),
        (6 * MINUTE_MS, 2, 1, 1),
    ]


def test_a_day_of_segments_is_kept() -> None:
    members = Members()
    for minute in range(MOST_MINUTES + 10):
        taken(members, "a", published_at_ms=minute * MINUTE_MS)
    assert len([*members.segments]) == MOST_MINUTES + 1
