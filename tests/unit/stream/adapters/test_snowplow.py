from __future__ import annotations

import copy
from typing import Any

import pytest

from stream.adapters.registry import reader
from stream.exceptions import BadRecordError
from tests.unit.stream.adapters.samples import SNOWPLOW_OPTIONS, SNOWPLOW_PING, SNOWPLOW_SENT

PLAYER = "contexts_com_snowplowanalytics_snowplow_media_player_2"
SESSION = "contexts_com_snowplowanalytics_snowplow_media_session_1"


def media(name: str, **player: Any) -> dict[str, Any]:
    record = copy.deepcopy(SNOWPLOW_PING)
    record["event_name"] = name
    record[PLAYER][0].update(player)
    return record


def only(record: dict[str, Any], **options: Any) -> dict[str, Any]:
    (event,) = reader("snowplow", {**SNOWPLOW_OPTIONS, **options})(record).events
    return event


def why(record: dict[str, Any]) -> str:
    return reader("snowplow", SNOWPLOW_OPTIONS)(record).passed_over


def test_a_ping_tells_what_its_entities_say() -> None:
    assert only(SNOWPLOW_PING) == {
        "event_id": "c6ef3124-b53a-4b13-a233-0088f79dcbcb",
        "profile_id": "member-7",
        "event_type": "play_progress",
        "occurred_at_ms": 1_714_849_511_123,
        "title_id": "show-9",
        "playback_id": "b1f7c9a2-52c1-4a26-b1b7-0f6ac7b1a111",
        "watched_s": 880.25,
        "position_s": 901.5,
        "duration_s": 3600.0,
        "season": 2,
        "episode": 3,
        "device": "Computer",
        "country": "DE",
    }


def test_entities_as_they_were_sent_say_the_same() -> None:
    event = only(SNOWPLOW_SENT)
    assert event == {
        name: value
        for name, value in only(SNOWPLOW_PING).items()
        if name not in ("device", "country")
    }


def test_properties_of_a_warehouse_are_in_snake_case() -> None:
    record = copy.deepcopy(SNOWPLOW_PING)
    record[PLAYER] = [{"current_time": 5.0, "duration": 10.0, "ended": False, "paused": False}]
    record[SESSION] = [{"media_session_id": "s", "content_watched": 4.0}]
    event = only(record)
    assert (event["playback_id"], event["position_s"], event["watched_s"]) == ("s", 5.0, 4.0)


def test_an_end_is_complete_at_the_end_alone() -> None:
    assert only(media("end_event", currentTime=3600.0))["event_type"] == "play_complete"
    assert only(media("end_event", currentTime=1200.0))["event_type"] == "play_stop"


def test_where_somebody_sought_to_is_not_where_they_watched_to() -> None:
    assert "position_s" not in only(media("seek_end_event", currentTime=3500.0))


def test_what_is_live_has_neither_position_nor_length() -> None:
    live = only(media("end_event", livestream=True, ended=True))
    assert live["event_type"] == "play_stop"
    assert not {"position_s", "duration_s"} & live.keys()


def test_a_play_begins_or_goes_on_by_its_position() -> None:
    assert only(media("play_event", currentTime=0))["event_type"] == "play_start"
    assert only(media("play_event", currentTime=9))["event_type"] == "play_resume"


def test_what_is_no_play_is_passed_over_with_its_reason() -> None:
    assert why(media("ad_start_event")) == "advertisement"
    assert why(media("volume_change_event")) == "player"
    assert why({**SNOWPLOW_PING, "event_vendor": "com.acme"}) == "no media event"
    assert why({**SNOWPLOW_PING, "contexts_com_acme_title_1": []}) == "no title entity"
    assert why({**SNOWPLOW_PING, "user_id": None}) == "anonymous"


def test_fields_of_the_title_are_where_the_options_say() -> None:
    record = {**SNOWPLOW_PING, "contexts_com_acme_title_1": [{"show": {"key": 9}, "s": "S04"}]}
    event = only(record, title="show.key", season="s")
    assert (event["title_id"], event["season"]) == ("9", 4)


def test_without_a_session_there_is_no_sitting() -> None:
    with pytest.raises(BadRecordError, match="mediaSessionId of the media session entity"):
        only({**SNOWPLOW_PING, SESSION: None})
