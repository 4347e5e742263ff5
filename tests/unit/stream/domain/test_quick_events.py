"""What is read quickly is what the models read; they judge all else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.domain.event_types import ADAPTERS, EVENT_TYPES
from stream.domain.interactions import interaction_of, interactions_of
from stream.domain.quick_events import READERS
from stream.domain.topics import EVENT_TOPICS
from tests.unit.stream.strategies import histories

FIELDS = {
    "event_id": "e",
    "profile_id": "p",
    "occurred_at_ms": 1,
    "device": "tv",
    "country": None,
    "title_id": "t",
    "playback_id": "s",
    "watched_s": 1.5,
    "position_s": 2,
    "duration_s": None,
    "season": 1,
    "episode": 2,
    "query": "q",
    "more": {"of": ["others", None]},
}
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 1 << 53, 32_768, 1_000_001, 1.0, "", "é" * 256, "é" * 257])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=300)
    | st.lists(st.integers(), max_size=2)
)
types = st.sampled_from([one.name for one in EVENT_TYPES] + ["mood", ""])
records = st.builds(
    lambda kept, changed, kind: {
        **{name: FIELDS[name] for name in kept},
        **changed,
        "event_type": kind,
    },
    st.sets(st.sampled_from(sorted(FIELDS)), min_size=len(FIELDS) - 3),
    st.dictionaries(st.sampled_from(sorted(FIELDS)), values, max_size=2),
    types,
)


def by_model(topic: str, value: bytes) -> Mapping[str, Any] | None:
    try:
        return ADAPTERS[topic].validate_json(value).model_dump()
    except ValidationError:
        return None


def agrees(topic: str, value: bytes) -> bool:
    """Whether it was taken quickly; if so, as the model takes it."""
    quick = READERS[topic](value)
    if quick is None:
        return False
    model = by_model(topic, value)
    assert model is not None, value
    assert {name: getattr(quick, name) for name in model} == model
    (alone,) = interactions_of([quick]).tolist()
    of_model = ADAPTERS[topic].validate_json(value)
    assert interaction_of(quick) == interaction_of(of_model)
    assert alone == interactions_of([of_model]).tolist()[0]
    return True


@given(st.sampled_from(EVENT_TOPICS), records)
def test_no_event_is_read_otherwise_than_the_models_read_it(
    topic: str, fields: dict[str, Any]
) -> None:
    try:
        value = orjson.dumps(fields)
    except TypeError:  # an integer beyond 64 bits
        return
    agrees(topic, value)


@given(st.sampled_from(EVENT_TOPICS), records, st.data())
def test_damaged_json_is_left_to_the_models(
    topic: str, fields: dict[str, Any], data: st.DataObject
) -> None:
    try:
        value = bytearray(orjson.dumps(fields))
    except TypeError:
        return
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    agrees(topic, bytes(value))


@pytest.mark.parametrize("one", EVENT_TYPES, ids=lambda one: one.name)
def test_an_event_of_each_type_is_read_quickly(one: Any) -> None:
    assert agrees(one.topic, orjson.dumps(FIELDS | {"event_type": one.name}))


@pytest.mark.parametrize(
    "text", ['"more": "\\ud800"', '"more": 01', '"more": NaN', '"device": "a", "device": "b"']
)
@pytest.mark.parametrize("topic", EVENT_TOPICS)
def test_doubtful_json_is_read_as_the_models_do_or_not_at_all(topic: str, text: str) -> None:
    kind = "play_start" if topic == "playback-events" else "search"
    value = orjson.dumps(FIELDS | {"event_type": kind})[:-1] + b"," + text.encode() + b"}"
    agrees(topic, value)


@given(histories)
def test_interactions_together_are_those_of_each(events: list[Any]) -> None:
    alone = [interaction_of(event) for event in events]
    together = interactions_of(events).tolist()
    assert [one for one, known in zip(together, alone, strict=True) if known] == [
        tuple(known) for known in alone if known
    ]
