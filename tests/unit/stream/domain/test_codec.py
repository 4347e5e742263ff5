"""State bytes come back as the same state, or are refused."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from stream.domain.codec import decode, encode
from stream.domain.event_types import Event
from stream.domain.profile_state import LogPosition, Rules, state_of
from stream.exceptions import BadStateError
from tests.unit.stream.strategies import histories

SMALL = Rules(window_length=4, memory_length=3)


@given(histories, st.integers(0, 2**62))
def test_a_state_survives_the_round_trip(events: list[Event], erased_at_ms: int) -> None:
    read = LogPosition(1 << 40, 7, 1 << 41), LogPosition(3, 1 << 20, 5)
    state = replace(state_of(events, SMALL), erased_at_ms=erased_at_ms, read=read)
    again = decode(encode(state))
    assert again.read == read
    assert encode(again) == encode(state)
    assert again.sequence_no == state.sequence_no


@given(st.sampled_from([(1, "<2sBBHHHqqqq", 0), (2, "<2sBBHHHqqqqq", 9)]), histories)
def test_a_state_of_a_version_before_knows_less(
    older: tuple[int, str, int], events: list[Event]
) -> None:
    version, scalars, erased_at_ms = older
    state = replace(state_of(events, SMALL), erased_at_ms=erased_at_ms)
    now = encode(state)[:-8]
    before = (
        now[:2]
        + bytes([version])
        + now[3 : struct.calcsize(scalars)]
        + now[struct.calcsize("<2sBBHHHqqqqqqiqqiq") :]
    )
    again = decode(before + struct.pack("<Q", xxhash.xxh3_64_intdigest(before)))
    assert encode(again) == encode(state)


@given(histories, st.data())
def test_any_damaged_byte_is_refused(events: list[Event], data: st.DataObject) -> None:
    raw = bytearray(encode(state_of(events, SMALL)))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadStateError):
        decode(bytes(raw))


@given(histories, st.data())
def test_bytes_cut_short_are_refused(events: list[Event], data: st.DataObject) -> None:
    raw = encode(state_of(events, SMALL))
    with pytest.raises(BadStateError):
        decode(raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(BadStateError):
        decode(raw)


@given(histories)
def test_a_decoded_state_can_be_changed_without_touching_its_source(events: list[Event]) -> None:
    raw = encode(state_of(events, SMALL))
    state = decode(raw)
    for event in events:
        state.apply(event, SMALL)
    assert encode(decode(raw)) == raw
