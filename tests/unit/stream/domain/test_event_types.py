from __future__ import annotations

import pytest
from pydantic import ValidationError

from stream.domain.event_types import (
    ACTION_OF_VERB,
    EVENT_TYPES,
    LOOKS,
    PLAY,
    PLAYS,
    STATELESS,
    Browse,
    Playback,
    event_of,
    types_on,
)
from stream.domain.labels import ACTIONS
from stream.domain.topics import BROWSE_EVENTS, EVENT_TOPICS, PLAYBACK_EVENTS

NAMES = sorted(one.name for one in EVENT_TYPES)


def test_every_event_type_has_a_name_of_its_own_and_a_topic_that_is_consumed() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {one.topic for one in EVENT_TYPES} == set(EVENT_TOPICS)


def test_verbs_are_numbered_without_a_gap_and_each_stands_for_one_action() -> None:
    assert set(ACTION_OF_VERB) == set(range(len(ACTION_OF_VERB)))
    for verb, action in ACTION_OF_VERB.items():
        assert action in ACTIONS
        assert {one.action for one in EVENT_TYPES if one.verb == verb} == {action}


def test_only_steps_of_a_sitting_share_a_verb() -> None:
    assert {one.name for one in EVENT_TYPES if one.shape is Playback} == set(PLAYS)
    verbs = [one.verb for one in EVENT_TYPES if one.name in LOOKS]
    assert len(set(verbs)) == len(verbs)


def test_the_verbs_of_stored_states_keep_their_meaning() -> None:
    verbs = {one.name: one.verb for one in EVENT_TYPES}
    assert [verbs["play_start"], verbs["trailer_play"], verbs["title_open"]] == [0, 1, 2]
    assert [verbs["search"], verbs["list_add"]] == [3, 4]
    assert PLAY == 0


def test_every_type_is_a_step_of_a_sitting_an_interaction_of_its_own_or_only_counted() -> None:
    assert sorted((*PLAYS, *LOOKS, *STATELESS)) == NAMES
    assert sorted((*types_on(PLAYBACK_EVENTS), *types_on(BROWSE_EVENTS))) == NAMES


def test_fields_become_an_event_of_their_types_shape() -> None:
    fields = {"event_id": "e", "profile_id": "p", "occurred_at_ms": 1, "title_id": "t"}
    assert isinstance(event_of(fields | {"event_type": "list_add"}), Browse)
    with pytest.raises(ValidationError, match="playback_id"):
        event_of(fields | {"event_type": "play_stop"})
    with pytest.raises(KeyError, match="dance"):
        event_of(fields | {"event_type": "dance"})
