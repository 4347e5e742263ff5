"""Session state as bytes: versioned, checksummed, and never a pickle.

Layout, little-endian: magic `IS`, version (u8), then lengths and scalars, then the columns of the
window, of the title memory and of the keys dropped last, then xxh3-64 of all that.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from stream.domain.event_types import PLAY
from stream.domain.interactions import INTERACTION, UNTOLD, InteractionArray, sitting_keys
from stream.domain.labels import DEVICES, device_hash
from stream.domain.profile_state import (
    MEMORY,
    UNREAD,
    LogPosition,
    ProfileState,
)
from stream.domain.rules import Rules
from stream.exceptions import BadStateError

_MAGIC: Final = b"IS"
_VERSION: Final = 4
_HEADERS: Final = {
    1: struct.Struct("<2sBBHHHqqqq"),
    2: struct.Struct("<2sBBHHHqqqqq"),
    3: struct.Struct("<2sBBHHHqqqqqqiqqiq"),
    _VERSION: struct.Struct("<2sBBHHHqqqqqqiqqiq"),
}
"""Headers by version. The first version had no erasure, the second no read positions, the third
other interactions."""

HEADER: Final = np.dtype(
    [
        ("magic", "S2"),
        ("version", "u1"),
        ("dropped", "u1"),
        ("event_id", "<u2"),
        ("window", "<u2"),
        ("memory", "<u2"),
        ("last_at_ms", "<i8"),
        ("folded", "<i8"),
        ("horizon_ms", "<i8"),
        ("horizon_key", "<i8"),
        ("erased_at_ms", "<i8"),
        ("read", [("at_ms", "<i8"), ("partition", "<i4"), ("offset", "<i8")], (2,)),
    ]
)
"""Today's header as a record, for whoever reads or writes many."""

_INTERACTION_BEFORE: Final = np.dtype(
    [
        ("start_ms", "<i8"),
        ("key", "<i8"),
        ("end_ms", "<i8"),
        ("title", "<i8"),
        ("described_by", "<i8"),
        ("watched_ms", "<i4"),
        ("duration_ms", "<i4"),
        ("season", "<i2"),
        ("episode", "<i2"),
        ("device", "u1"),
        ("verb", "u1"),
        ("complete", "u1"),
    ]
)
"""Of the first three versions: a sitting's key was that of its playback_id alone, a device an index
into `DEVICES`, and no watch time was 0."""

_CHECKSUM: Final = struct.Struct("<Q")


def encode(state: ProfileState) -> bytes:
    """The bytes of `state`.

    Raises:
        BadStateError: when the state has more entries than the format can count.
    """
    event_id = state.last_event_id.encode()
    try:
        header = _HEADERS[_VERSION].pack(
            _MAGIC,
            _VERSION,
            len(state.dropped),
            len(event_id),
            len(state.window),
            len(state.memory),
            state.last_at_ms,
            state.folded,
            *state.horizon,
            state.erased_at_ms,
            *state.read[0],
            *state.read[1],
        )
    except struct.error as error:
        raise BadStateError(f"this state can't be encoded: {error}") from None
    body = b"".join(
        (
            header,
            event_id,
            state.window.tobytes(),
            state.memory.tobytes(),
            state.dropped.tobytes(),
        )
    )
    return body + checksum(body)


def decode(data: bytes) -> ProfileState:
    """The state that `data` was made from.

    Raises:
        BadStateError: when the bytes are damaged, cut short, or of a version that is unknown here.
    """
    header, body = _HEADERS[_checked_version(data)], data[: -_CHECKSUM.size]
    _, _, dropped, event_id, window, memory, last_at_ms, folded, start_ms, key, *added = (
        header.unpack_from(body)
    )
    erased_at_ms, *places = added or (0,)
    at = header.size
    row = INTERACTION if data[2] == _VERSION else _INTERACTION_BEFORE
    expected = at + event_id + window * row.itemsize + memory * MEMORY.itemsize + dropped * 8
    if len(body) != expected:
        raise BadStateError(f"session state of {len(body)} bytes whose header says {expected}")
    last_event_id = body[at : at + event_id].decode()
    at += event_id
    rows = np.frombuffer(body, row, window, at)
    at += rows.nbytes
    titles = np.frombuffer(body, MEMORY, memory, at)
    at += titles.nbytes
    return ProfileState(
        window=rows.copy() if row is INTERACTION else _renewed(rows),
        memory=titles,
        dropped=np.frombuffer(body, np.int64, dropped, at),
        horizon=(start_ms, key),
        folded=folded,
        last_at_ms=last_at_ms,
        last_event_id=last_event_id,
        erased_at_ms=erased_at_ms,
        read=(LogPosition(*places[:3]), LogPosition(*places[3:])) if places else (UNREAD, UNREAD),
    )


def _checked_version(data: bytes) -> int:
    """The version of bytes that are whole."""
    if len(data) < 3 or data[:2] != _MAGIC:
        raise BadStateError("not session state: the header is missing")
    header = _HEADERS.get(data[2])
    if header is None:
        raise BadStateError(f"state of version {data[2]}; this code reads up to {_VERSION}")
    if len(data) < header.size + _CHECKSUM.size:
        raise BadStateError(f"session state of {len(data)} bytes, cut short within its header")
    if data[-_CHECKSUM.size :] != checksum(memoryview(data)[: -_CHECKSUM.size]):
        raise BadStateError("damaged session state: the checksum differs")
    return data[2]


def checksum(body: bytes | memoryview) -> bytes:
    """What stands behind a state's bytes."""
    return _CHECKSUM.pack(xxhash.xxh3_64_intdigest(body))


def of_today(data: bytes) -> bytes:
    """The same state in today's version.

    Raises:
        BadStateError: as `decode`.
    """
    return data if _checked_version(data) == _VERSION else encode(decode(data))


def _renewed(before: NDArray[Any]) -> InteractionArray:
    """Interactions of a former version as they are kept now."""
    rows = np.zeros(len(before), INTERACTION)
    for name in _INTERACTION_BEFORE.fields or ():
        rows[name] = before[name]
    plays = before["verb"] == PLAY
    keys = sitting_keys(before["key"], before["title"], before["season"], before["episode"])
    rows["key"] = np.where(plays, keys, before["key"])
    rows["watched_ms"] = np.where(before["watched_ms"] > 0, before["watched_ms"], UNTOLD)
    rows["position_ms"] = UNTOLD
    known = np.array([0, *map(device_hash, DEVICES[1:])], np.uint32)
    rows["device"] = known[before["device"]]
    return rows[np.lexsort((rows["key"], rows["start_ms"]))]


def joined(known: bytes | None, more: bytes, rules: Rules) -> bytes:
    """The least state that covers two of the same profile; `known` is None where there is none.

    Raises:
        BadStateError: as `decode`.
    """
    if known is None or known == more:
        return more
    state, other = decode(known), decode(more)
    # Nearly always one has all of the other: what comes next in the log, or is read again.
    if other.covers(state, rules):
        return more
    if state.covers(other, rules):
        return known
    return encode(state.joined(other, rules))
