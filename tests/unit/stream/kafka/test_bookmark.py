"""A bookmark tells whether a log is still the one that it was made in, and where to go on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata, OffsetAndTimestamp

from stream.kafka.bookmark import Bookmark, behind_markers, replaced

PLACE = TopicPartition("events", 0)


class Log:
    """A consumer of one partition whose records bear these broker times."""

    def __init__(self, times_ms: list[int], start: int = 0) -> None:
        self.times_ms = times_ms
        self.start = start
        self._fetcher = self
        self._request_timeout_ms = 0

    async def end_offsets(self, places: Any, timeout_ms: int) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.start + len(self.times_ms))

    async def beginning_offsets(self, places: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.start)

    async def offsets_for_times(self, asked: dict[TopicPartition, int]) -> dict[Any, Any]:
        return {
            place: next(
                (
                    OffsetAndTimestamp(self.start + number, of_it)
                    for number, of_it in enumerate(self.times_ms)
                    if of_it >= time_ms
                ),
                None,
            )
            for place, time_ms in asked.items()
        }


@pytest.mark.parametrize(
    ("log", "mark", "goes_on_at"),
    [
        (Log([1, 2, 3, 4]), Bookmark(2, 2), None),
        (Log([1, 2, 2, 2]), Bookmark(2, 2), None),
        (Log([1, 2]), Bookmark(2, 2), None),
        (Log([5, 6], start=9), Bookmark(2, 2), None),
        (Log([1, 2]), Bookmark(2), None),
        # Made anew: empty, shorter, and grown beyond what was read.
        (Log([]), Bookmark(2, 2), 0),
        (Log([7]), Bookmark(2, 2), 0),
        (Log([7, 8, 9, 9]), Bookmark(2, 2), 0),
        # Its end was lost, and other records stand there.
        (Log([1, 2]), Bookmark(4, 4), 2),
        (Log([1, 2, 7, 8, 9]), Bookmark(4, 4), 2),
        # An offset without a time can only lie beyond the end.
        (Log([7, 8], start=5), Bookmark(100), 5),
    ],
)
def test_what_stands_below_and_is_later_is_of_another_log(
    log: Any, mark: Bookmark, goes_on_at: int | None
) -> None:
    assert asyncio.run(replaced(log, {PLACE: mark})).get(PLACE) == goes_on_at


@pytest.mark.parametrize(
    ("log", "mark", "committed"),
    [
        (Log([1, 2, 6, 7, 9]), Bookmark(4, 2), Bookmark(4, 7)),
        (Log([1, 2]), Bookmark(2, 2), Bookmark(2, 2)),
        (Log([*range(1, 50)]), Bookmark(49, 2), Bookmark(49)),
        (Log([1, 2, 6]), Bookmark(3), Bookmark(3)),
    ],
)
def test_a_bookmark_behind_markers_has_their_time(
    log: Any, mark: Bookmark, committed: Bookmark
) -> None:
    assert asyncio.run(behind_markers(log, PLACE, mark)) == committed


@pytest.mark.parametrize("mark", [Bookmark(5), Bookmark(5, 0), Bookmark(5, 1_700_000_000_000)])
def test_what_is_committed_is_read_back(mark: Bookmark) -> None:
    assert Bookmark.of(mark.to_commit()) == mark


@pytest.mark.parametrize("told", ["", None, "of another program", "read_to_ms=", "read_to_ms=-1"])
def test_what_others_commit_has_no_time(told: Any) -> None:
    assert Bookmark.of(OffsetAndMetadata(5, told)) == Bookmark(5)


def test_without_bookmarks_nothing_is_asked() -> None:
    assert asyncio.run(replaced(SimpleNamespace(), {})) == {}  # type: ignore[arg-type]
