"""Session state as bytes: versioned, checksummed, and never a pickle.

Layout, little-endian: magic `IS`, version (u8), then lengths and scalars, then the columns of the
window, of the title memory and of the keys dropped last, then xxh3-64 of all that.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import xxhash

from stream.domain.interactions import INTERACTION
from stream.domain.profile_state import MEMORY, UNREAD, LogPosition, ProfileState, Rules
from stream.exceptions import BadStateError

_MAGIC: Final = b"IS"
_VERSION: Final = 3
_HEADERS: Final = {
    1: struct.Struct("<2sBBHHHqqqq"),
    2: struct.Struct("<2sBBHHHqqqqq"),
    _VERSION: struct.Struct("<2sBBHHHqqqqqqiqqiq"),
}
"""Headers by version. The first version had no erasure, the second no read positions."""
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
    return body + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(body))


def decode(data: bytes) -> ProfileState:
    """The state that `data` was made from.

    Raises:
        BadStateError: when the bytes are damaged, cut short, or of a version that is unknown here.
    """
    if len(data) < 3 or data[:2] != _MAGIC:
        raise BadStateError("not session state: the header is missing")
    header = _HEADERS.get(data[2])
    if header is None:
        raise BadStateError(f"state of version {data[2]}; this code reads up to {_VERSION}")
    if len(data) < header.size + _CHECKSUM.size:
        raise BadStateError(f"session state of {len(data)} bytes, cut short within its header")
    body, checksum = data[: -_CHECKSUM.size], data[-_CHECKSUM.size :]
    if _CHECKSUM.unpack(checksum)[0] != xxhash.xxh3_64_intdigest(body):
        raise BadStateError("damaged session state: the checksum differs")
    _, _, dropped, event_id, window, memory, last_at_ms, folded, start_ms, key, *added = (
        header.unpack_from(body)
    )
    erased_at_ms, *places = added or (0,)
    at = header.size
    expected = (
        at + event_id + window * INTERACTION.itemsize + memory * MEMORY.itemsize + dropped * 8
    )
    if len(body) != expected:
        raise BadStateError(f"session state of {len(body)} bytes whose header says {expected}")
    last_event_id = body[at : at + event_id].decode()
    at += event_id
    rows = np.frombuffer(body, INTERACTION, window, at).copy()
    at += rows.nbytes
    titles = np.frombuffer(body, MEMORY, memory, at)
    at += titles.nbytes
    return ProfileState(
        window=rows,
        memory=titles,
        dropped=np.frombuffer(body, np.int64, dropped, at),
        horizon=(start_ms, key),
        folded=folded,
        last_at_ms=last_at_ms,
        last_event_id=last_event_id,
        erased_at_ms=erased_at_ms,
        read=(LogPosition(*places[:3]), LogPosition(*places[3:])) if places else (UNREAD, UNREAD),
    )


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
