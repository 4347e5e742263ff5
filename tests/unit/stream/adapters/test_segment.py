from __future__ import annotations

from typing import Any

import pytest

from stream.adapters.registry import reader
from stream.exceptions import BadRecordError
from tests.unit.stream.adapters.samples import SEGMENT_PLAYING

BY_SHOW = {"show": "properties.program"}


def call(event: str, properties: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    told = {**SEGMENT_PLAYING["properties"], **(properties or {})}
    return {**SEGMENT_PLAYING, "event": event, "properties": told, **fields}


def paused(**properties: Any) -> dict[str, Any]:
    """As the spec has it: the player's position, the asset, no season and no episode."""
    told = {"session_id": "12345", "content_asset_id": "0129370", "position": 1000, **properties}
    return {**SEGMENT_PLAYING, "event": "Video Playback Paused", "properties": told}


def only(record: dict[str, Any], **options: Any) -> dict[str, Any]:
    (event,) = reader("segment", options)(record).events
    return event


def why(record: dict[str, Any], **options: Any) -> str:
    return reader("segment", options)(record).passed_over


def test_a_heartbeat_tells_how_far_somebody_is() -> None:
    assert only(SEGMENT_PLAYING, **BY_SHOW) == {
        "event_id": "ajs-next-1714849511123-5d8a7f0c-0a51-4b43-9f6e-0c2a7ff1c3aa",
        "profile_id": "account-7",
        "event_type": "play_progress",
        "occurred_at_ms": 1_714_849_511_123,
        "title_id": "Planet Earth",
        "playback_id": "12345",
        "position_s": 910.0,
        "duration_s": 3600.0,
        "season": 1,
        "episode": 4,
        "device": "android",
        "country": "Germany",
    }


def test_without_a_show_the_asset_is_the_title_and_has_no_numbers() -> None:
    event = only(SEGMENT_PLAYING)
    assert event["title_id"] == "0129370"
    assert not {"season", "episode"} & event.keys()


def test_a_pause_is_of_the_sitting_of_its_asset() -> None:
    event, heartbeat = only(paused()), only(SEGMENT_PLAYING)
    sitting = ("title_id", "playback_id")
    assert [event[name] for name in sitting] == [heartbeat[name] for name in sitting]
    assert event["event_type"] == "play_pause"


def test_a_pause_that_names_no_show_is_passed_over_where_shows_are_titles() -> None:
    assert why(paused(), **BY_SHOW) == "no show told"


def test_positions_and_lengths_that_count_advertisements_are_not_taken() -> None:
    assert not {"position_s", "duration_s"} & only(paused(total_length=4000)).keys()


def test_content_is_complete_at_its_length_alone() -> None:
    pod = call("Video Content Completed", {"position": 1200})
    whole = call("Video Content Completed", {"position": 3600})
    assert only(pod)["event_type"] == "play_progress"
    assert only(whole)["event_type"] == "play_complete"


def test_what_is_live_has_neither_position_nor_length_and_is_never_complete() -> None:
    live = {"livestream": True, "position": 1_714_849_511, "total_length": None}
    event = only(call("Video Content Completed", live))
    assert event["event_type"] == "play_progress"
    assert not {"position_s", "duration_s"} & event.keys()


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("Video Ad Playing", "advertisement"),
        ("Video Playback Buffer Started", "buffering"),
        ("Video Playback Seek Completed", "seeking"),
        ("Video Playback Started", "before any content"),
        ("Order Completed", "another call"),
    ],
)
def test_what_is_no_play_is_passed_over_with_its_reason(event: str, reason: str) -> None:
    assert why(call(event)) == reason


def test_whoever_is_not_logged_in_is_passed_over_or_taken_by_an_option() -> None:
    nobody = {name: value for name, value in SEGMENT_PLAYING.items() if name != "userId"}
    assert why(nobody) == "anonymous"
    event = only(nobody, profile=("userId", "anonymousId"))
    assert event["profile_id"] == SEGMENT_PLAYING["anonymousId"]


def test_a_profile_and_the_time_watched_are_read_where_one_keeps_them() -> None:
    record = call("Video Content Playing", {"profile": "kid-1", "watch_time": 300})
    options = {"profile": ("properties.profile",), "watched": "properties.watch_time"}
    event = only(record, **options)
    assert (event["profile_id"], event["watched_s"]) == ("kid-1", 300)


def test_a_message_without_an_id_has_one_by_what_it_says() -> None:
    bare = {name: value for name, value in SEGMENT_PLAYING.items() if name != "messageId"}
    later = {**bare, "timestamp": "2024-05-04T19:05:21.123Z"}
    assert only(bare)["event_id"] == only(dict(bare))["event_id"] != only(later)["event_id"]


def test_calls_of_ones_own_are_browsing_by_an_option() -> None:
    record = {**call("Title Viewed", {"asset_id": "film-3"}), "messageId": "m"}
    event = only(record, browse={"Title Viewed": "title_open"})
    assert (event["event_type"], event["title_id"]) == ("title_open", "film-3")


def test_browsing_is_of_the_show_that_plays_are_of() -> None:
    record = call("Title Viewed", {"asset_id": "a-7", "program": "s-1", "season": 2, "episode": 3})
    browse = {"Title Viewed": "title_open"}
    event = only(record, browse=browse, show="properties.program")
    assert (event["title_id"], event["season"], event["episode"]) == ("s-1", 2, 3)
    event = only(record, browse=browse, show="properties.program", browse_title="properties.season")
    assert (event["title_id"], event.get("season")) == ("2", None)


def test_a_time_without_an_offset_is_refused() -> None:
    with pytest.raises(BadRecordError, match="has no offset"):
        reader("segment")({**SEGMENT_PLAYING, "timestamp": "2024-05-04T19:05:11"})
