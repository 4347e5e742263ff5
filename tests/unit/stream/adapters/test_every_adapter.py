from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.adapters.registry import GROUP, adapters, reader
from stream.domain.event_types import BY_NAME
from stream.domain.events import decode
from stream.exceptions import AdapterOptionsError, BadRecordError, UnknownAdapterError
from tests.unit.stream.adapters.samples import SAMPLES

_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300)
    | st.floats()
    | st.text(max_size=300)
    | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31 23:59:59", "1970-01-01T00:00:00Z"])
    | st.datetimes()
    | st.binary(max_size=5)
    | st.decimals()
)
_anything = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else ()
    steps = enumerate(value) if isinstance(value, list) else steps
    return [place, *(found for key, one in steps for found in _places(one, (*place, key)))]


def _damaged(record: dict[str, Any], draw: Any) -> dict[str, Any]:
    """The record with up to three of its values exchanged for anything, or gone."""
    whole = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(_places(whole)[1:]))
        holder: Any = whole
        for step in above:
            holder = holder[step]
        if draw(st.booleans()):
            holder[last] = draw(_anything)
        elif isinstance(holder, dict):
            del holder[last]
        if not whole:
            break
    return whole


def _as_on_the_topic(event: dict[str, Any]) -> None:
    topic = BY_NAME[event["event_type"]].topic
    key = event["profile_id"].encode()
    decode(topic, key, orjson.dumps(event), broker_time_ms=1 << 53)


@pytest.mark.parametrize(("name", "options", "record"), SAMPLES)
def test_what_comes_of_a_sample_is_valid_on_our_topics(
    name: str, options: dict[str, Any], record: dict[str, Any]
) -> None:
    events = reader(name, options)(record).events
    assert events
    for event in events:
        _as_on_the_topic(event)


@pytest.mark.parametrize(("name", "options", "record"), SAMPLES)
def test_a_record_gives_the_same_whenever_it_is_read(
    name: str, options: dict[str, Any], record: dict[str, Any]
) -> None:
    assert reader(name, options)(record) == reader(name, options)(copy.deepcopy(record))


@pytest.mark.parametrize(("name", "options", "record"), SAMPLES)
@given(data=st.data())
def test_a_damaged_record_is_refused_or_gives_valid_events(
    name: str, options: dict[str, Any], record: dict[str, Any], data: Any
) -> None:
    try:
        adapted = reader(name, options)(_damaged(record, data.draw))
    except BadRecordError:
        return
    assert bool(adapted.events) != bool(adapted.passed_over)
    for event in adapted.events:
        assert None not in event.values()
        _as_on_the_topic(event)


@pytest.mark.parametrize("name", list(adapters()))
@given(record=_anything)
def test_anything_at_all_is_refused_or_passed_over(name: str, record: Any) -> None:
    options = next(options for known, options, _ in SAMPLES if known == name)
    with contextlib.suppress(BadRecordError):
        assert not reader(name, options)(record).events


def test_an_unknown_adapter_is_told_with_those_there_are() -> None:
    with pytest.raises(UnknownAdapterError, match=r"no adapter 'hulu'; there are: .*netflix"):
        reader("hulu")


def test_an_option_that_an_adapter_lacks_is_named() -> None:
    with pytest.raises(AdapterOptionsError, match="time_zone: Field required"):
        reader("jellyfin-reports")
    with pytest.raises(AdapterOptionsError, match="'Europe/Berlín' is no time zone"):
        reader("jellyfin-reports", {"time_zone": "Europe/Berlín"})


def test_an_option_that_an_adapter_does_not_take_is_told_with_those_it_takes() -> None:
    with pytest.raises(AdapterOptionsError, match="it takes: season_words"):
        reader("netflix", {"zone": "UTC"})


def test_a_package_adds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = tmp_path / "theirs-1.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (noted / "entry_points.txt").write_text(f"[{GROUP}]\none = their_adapter:ADAPTER\n")
    (tmp_path / "their_adapter.py").write_text(
        "from stream.adapters.adapter import Adapter, Options, passed_over\n"
        "ADAPTER = Adapter('theirs', Options, lambda record, options: passed_over('all'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    adapters.cache_clear()
    try:
        assert reader("theirs")({}).passed_over == "all"
    finally:
        adapters.cache_clear()
