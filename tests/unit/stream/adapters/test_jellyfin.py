from __future__ import annotations

from typing import Any

import pytest

from stream.adapters.registry import reader
from stream.exceptions import BadRecordError, Reason
from tests.unit.stream.adapters.samples import JELLYFIN_ROW, JELLYFIN_STOP

BERLIN = {"time_zone": "Europe/Berlin"}
BEGAN = 1_714_849_511_123


def row(**fields: Any) -> tuple[dict[str, Any], ...]:
    return reader("jellyfin-reports", BERLIN)({**JELLYFIN_ROW, **fields}).events


def message(**fields: Any) -> dict[str, Any]:
    (event,) = reader("jellyfin-webhook")({**JELLYFIN_STOP, **fields}).events
    return event


def test_a_row_is_a_sitting_from_its_local_start_for_as_long_as_was_played() -> None:
    start, stop = row()
    assert (start["occurred_at_ms"], start["event_type"]) == (BEGAN, "play_start")
    assert (stop["occurred_at_ms"], stop["event_type"]) == (BEGAN + 2_710_000, "play_stop")
    assert stop["watched_s"] == 2710
    assert start["playback_id"] == stop["playback_id"]
    assert (start["title_id"], start["season"], start["episode"]) == ("Planet Earth", 1, 4)


def test_a_length_of_zero_is_unknown() -> None:
    (start,) = row(PlayDuration="0")
    assert "watched_s" not in start


def test_numbers_of_zero_are_unknown() -> None:
    start, _ = row(ItemName="Planet Earth - s00e00 - A special")
    assert not {"season", "episode"} & start.keys()


def test_a_film_is_its_item() -> None:
    start, _ = row(ItemType="Movie", ItemName="Dune - s01e01 - no episode")
    assert start["title_id"] == JELLYFIN_ROW["ItemId"]


def test_a_series_has_the_id_that_the_options_give_it() -> None:
    options = {**BERLIN, "series": {"Planet Earth": "fedcba9876543210fedcba9876543210"}}
    start, _ = reader("jellyfin-reports", options)(JELLYFIN_ROW).events
    assert start["title_id"] == "fedcba9876543210fedcba9876543210"


def test_a_sitting_that_a_later_backup_knows_longer_is_the_same_sitting() -> None:
    (start, stop), (again, longer) = row(), row(PlayDuration="3000")
    assert start == again
    assert stop["playback_id"] == longer["playback_id"]
    assert stop["event_id"] != longer["event_id"]


@pytest.mark.parametrize(("kind", "why"), [("Trailer", "trailer"), ("Audio", "no video")])
def test_what_is_no_play_is_passed_over(kind: str, why: str) -> None:
    record = {**JELLYFIN_ROW, "ItemType": kind}
    assert reader("jellyfin-reports", BERLIN)(record).passed_over == why


def test_a_clock_that_was_never_set_is_refused() -> None:
    with pytest.raises(BadRecordError, match="DateCreated is before 1990") as bad:
        row(DateCreated="1970-01-01 00:03:12")
    assert bad.value.reason is Reason.OUT_OF_RANGE


def test_a_row_that_lacks_columns_is_refused() -> None:
    with pytest.raises(BadRecordError, match="PlayDuration is missing"):
        row(PlayDuration=None)


def test_a_stop_tells_how_far_somebody_came() -> None:
    event = message()
    assert event["event_type"] == "play_stop"
    assert event["occurred_at_ms"] == 1_714_852_221_765
    assert (event["position_s"], event["duration_s"]) == (2710.0, 3600.0)
    assert event["title_id"] == "fedcba9876543210fedcba9876543210"
    assert (event["season"], event["episode"]) == (1, 4)


def test_ids_are_those_of_the_backup() -> None:
    start, _ = row()
    assert message()["profile_id"] == start["profile_id"]


def test_ticks_of_zero_are_unknown() -> None:
    event = message(PlaybackPositionTicks=0, RunTimeTicks=0)
    assert not {"position_s", "duration_s"} & event.keys()


def test_what_is_played_to_completion_is_complete() -> None:
    assert message(PlayedToCompletion=True)["event_type"] == "play_complete"
    assert message(PlayedToCompletion="True")["event_type"] == "play_complete"


def test_a_sitting_goes_over_midnight_and_another_day_has_another() -> None:
    late = message(UtcTimestamp="2024-05-04T23:30:00Z")
    later = message(UtcTimestamp="2024-05-05T01:10:00Z")
    next_day = message(UtcTimestamp="2024-05-05T20:00:00Z")
    assert late["playback_id"] == later["playback_id"] != next_day["playback_id"]


def test_a_channel_has_neither_position_nor_length() -> None:
    event = message(ItemType="LiveTvChannel")
    assert not {"position_s", "duration_s"} & event.keys()


def test_another_notification_is_passed_over() -> None:
    record = {**JELLYFIN_STOP, "NotificationType": "ItemAdded"}
    assert reader("jellyfin-webhook")(record).passed_over == "another notification"
