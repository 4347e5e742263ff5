"""State bytes come back as the same state, or are refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from stream.domain.codec import decode, encode
from stream.domain.event_types import PLAY, Event
from stream.domain.interactions import UNTOLD, sitting_key
from stream.domain.labels import device_hash
from stream.domain.profile_state import LogPosition, ProfileState, state_of
from stream.domain.rules import Rules
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


BEFORE = np.dtype(
    [
        *((name, "<i8") for name in ("start_ms", "key", "end_ms", "title", "described_by")),
        *((name, "<i4") for name in ("watched_ms", "duration_ms")),
        *((name, "<i2") for name in ("season", "episode")),
        *((name, "u1") for name in ("device", "verb", "complete")),
    ]
)


def as_before(state: ProfileState, version: int) -> bytes:
    """The bytes that a former version would have written of a state with these keys."""
    scalars = {1: "<2sBBHHHqqqq", 2: "<2sBBHHHqqqqq", 3: "<2sBBHHHqqqqqqiqqiq"}[version]
    now = encode(replace(state, window=state.window[:0], memory=state.memory[:0]))
    rows = np.zeros(len(state.window), BEFORE)
    for name in BEFORE.names or ():
        rows[name] = state.window[name] if name != "device" else 2
    rows["watched_ms"] = np.maximum(rows["watched_ms"], 0)
    event_id = state.last_event_id.encode()
    header = now[:2] + bytes([version])
    header += struct.pack("<BHHH", len(state.dropped), len(event_id), len(rows), len(state.memory))
    header += now[len(header) : struct.calcsize(scalars)]
    body = header + event_id + rows.tobytes() + state.memory.tobytes() + state.dropped.tobytes()
    return body + struct.pack("<Q", xxhash.xxh3_64_intdigest(body))


def renewed_key(row: Any) -> int:
    key: int = row["key"].item()
    if row["verb"] != PLAY:
        return key
    return sitting_key(key, *row[["title", "season", "episode"]].item())


@given(st.sampled_from([1, 2, 3]), histories)
def test_a_state_of_a_version_before_is_renewed(version: int, events: list[Event]) -> None:
    state = state_of(events, SMALL)
    again = decode(as_before(state, version))
    assert (again.last_event_id, again.folded) == (state.last_event_id, state.folded)
    assert again.memory.tobytes() == state.memory.tobytes()
    order = [*zip(again.window["start_ms"].tolist(), again.window["key"].tolist(), strict=True)]
    assert order == sorted(order)
    assert {*order} == {(row["start_ms"].item(), renewed_key(row)) for row in state.window}
    assert (again.window["device"] == device_hash("mobile")).all()
    assert (again.window["position_ms"] == UNTOLD).all()
    assert not (again.window["watched_ms"] == 0).any()


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
