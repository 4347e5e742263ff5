from __future__ import annotations

from typing import Any

import pytest

from stream.adapters.registry import reader
from stream.exceptions import BadRecordError, Reason
from tests.unit.stream.adapters.samples import CLOUDEVENT


def only(record: dict[str, Any], **options: Any) -> dict[str, Any]:
    (event,) = reader("cloudevents", options)(record).events
    return event


def test_attributes_stand_in_for_what_the_data_leaves_out() -> None:
    assert only(CLOUDEVENT) == {
        "event_id": "A234-1234-1234",
        "profile_id": "member-7",
        "event_type": "play_stop",
        "occurred_at_ms": 1_714_849_511_000,
        "title_id": "film-3",
        "playback_id": "sitting-1",
        "watched_s": 1200.0,
    }


def test_types_and_fields_of_others_are_read_by_options() -> None:
    record = {
        **CLOUDEVENT,
        "type": "com.acme.player.stopped",
        "subject": "member-8",
        "data": {"video": {"id": "film-4", "session": "s"}},
    }
    event = only(
        record,
        types={"com.acme.player.stopped": "play_stop"},
        fields={
            "profile_id": "subject",
            "title_id": "data.video.id",
            "playback_id": "data.video.session",
        },
    )
    assert [event[name] for name in ("event_type", "profile_id", "title_id")] == [
        "play_stop",
        "member-8",
        "film-4",
    ]


def test_another_type_is_passed_over_where_types_are_given_and_refused_where_not() -> None:
    other = {**CLOUDEVENT, "type": "com.acme.billing"}
    options = {"types": {"com.acme.player.stopped": "play_stop"}}
    assert reader("cloudevents", options)(other).passed_over == "another type"
    with pytest.raises(BadRecordError) as bad:
        reader("cloudevents")(other)
    assert bad.value.reason is Reason.UNKNOWN_EVENT_TYPE


def test_what_is_no_cloudevent_is_refused() -> None:
    with pytest.raises(BadRecordError, match="this is no CloudEvent"):
        reader("cloudevents")(CLOUDEVENT["data"])
