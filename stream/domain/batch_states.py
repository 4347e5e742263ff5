"""The states of a batch's profiles in columns: read from bytes, changed, and written again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from stream.domain import codec
from stream.domain.compiled import compiled
from stream.domain.interactions import INTERACTION, InteractionArray, measure
from stream.domain.labels import hash64
from stream.domain.profile_state import MEMORY, ProfileState
from stream.domain.rules import Rules
from stream.domain.taking_in import HEAD, NONE, OLDER, take_in
from stream.exceptions import BadStateError

_NEW: Final = codec.encode(ProfileState())
_SAME_NAME: Final = (
    *("window", "memory", "dropped", "horizon_ms", "horizon_key"),
    *("folded", "last_at_ms", "erased_at_ms"),
)
"""Fields of `HEAD` that a state's header has, too."""


class TakenIn(NamedTuple):
    """What became of E events."""

    outcomes: NDArray[np.int8]
    """`[E]`, of `stream.domain.taking_in`; undefined of events without a state."""

    reached: NDArray[np.bool_]
    """`[E]`: whether the event touched its profile's state."""


@dataclass(frozen=True, slots=True)
class BatchStates:
    """S states, each as `ProfileState` has it."""

    heads: NDArray[Any]
    """`[S]` of `HEAD`."""

    windows: InteractionArray
    """`[S, cap]`; of each as many as its head says, like the next two."""

    memories: NDArray[Any]
    """`[S, cap]` of `MEMORY`."""

    dropped: NDArray[np.int64]
    """`[S, cap]`."""

    read: NDArray[np.int64]
    """`[S, 2, 3]`: of the playback and the browse topic, the `LogPosition`."""

    last_event_ids: list[str]
    """`[S]`."""

    def __len__(self) -> int:
        return len(self.heads)

    @classmethod
    def of(cls, states: Iterable[ProfileState]) -> Self:
        """These states, to be read alone."""
        return cls.decoded([codec.encode(state) for state in states])

    @classmethod
    def decoded(cls, data: Sequence[bytes | None], rules: Rules | None = None) -> Self:
        """The states that were encoded; None is one of nothing.

        Args:
            data: the bytes of each.
            rules: by which events are to be taken in; None where none will be.

        Raises:
            BadStateError: as `codec.decode`.
        """
        whole = [codec.of_today(one) if one else _NEW for one in data]
        size = codec.HEADER.itemsize
        header = np.frombuffer(b"".join([one[:size] for one in whole]), codec.HEADER)
        begin = np.zeros(len(whole) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, whole), np.int64, len(whole)), out=begin[1:])
        heads = np.zeros(len(whole), HEAD)
        for name in _SAME_NAME:
            heads[name] = header[name]
        ids = [
            one[size : size + length].decode()
            for one, length in zip(whole, header["event_id"].tolist(), strict=True)
        ]
        heads["last_hash"] = [hash64(event_id) for event_id in ids]
        heads["last_event"] = np.where(header["event_id"] > 0, OLDER, NONE)
        heads["touched"] = -1
        new, block = (rules.window_length, rules.window_length // 2) if rules else (0, 0)
        most = rules.memory_length if rules else 0
        states = cls(
            heads,
            _rows(heads["window"], new, 1, INTERACTION),
            _rows(heads["memory"], most, block, MEMORY),
            _rows(heads["dropped"], block, 0, np.dtype(np.int64)),
            np.array([header["read"][name] for name in ("at_ms", "partition", "offset")])
            .transpose(1, 2, 0)
            .copy(),
            ids,
        )
        expected = (
            size + header["event_id"] + _lengths(heads).sum(axis=1) + len(codec.checksum(b""))
        )
        if (wrong := np.flatnonzero(expected != np.diff(begin))).size:
            codec.decode(whole[wrong[0]])  # which says what is wrong
        _unpack(
            np.frombuffer(b"".join(whole), np.uint8),
            begin[:-1] + size + header["event_id"],
            _lengths(heads),
            _bytes_of(states.windows),
            _bytes_of(states.memories),
            _bytes_of(states.dropped),
        )
        return states

    def encoded(self, rows: NDArray[np.intp]) -> list[bytes]:
        """The bytes of these states.

        Raises:
            BadStateError: as `codec.encode`.
        """
        heads = self.heads[rows]
        ids = [self.last_event_ids[row].encode() for row in rows.tolist()]
        header = np.zeros(len(rows), codec.HEADER)
        header[:] = np.frombuffer(_NEW[: codec.HEADER.itemsize], codec.HEADER)
        for name in _SAME_NAME:
            header[name] = heads[name]
        header["event_id"] = [*map(len, ids)]
        for number, name in enumerate(("at_ms", "partition", "offset")):
            header["read"][name] = self.read[rows, :, number]
        for name in ("window", "memory", "dropped"):
            if (header[name] != heads[name]).any():
                raise BadStateError(
                    f"this state can't be encoded: {heads[name].max()} entries of {name}"
                )
        id_begin = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(header["event_id"], out=id_begin[1:])
        lengths = _lengths(heads)
        begin = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(header.itemsize + header["event_id"] + lengths.sum(axis=1), out=begin[1:])
        out = np.empty(begin[-1], np.uint8)
        _pack(
            rows,
            _bytes_of(header[:, None]),
            np.frombuffer(b"".join(ids), np.uint8),
            id_begin,
            lengths,
            _bytes_of(self.windows),
            _bytes_of(self.memories),
            _bytes_of(self.dropped),
            out,
            begin,
        )
        bodies: memoryview = out.data
        return [
            bytes(body) + codec.checksum(body)
            for body in (bodies[start:end] for start, end in pairwise(begin.tolist()))
        ]

    def take(self, rows: NDArray[np.intp]) -> BatchStates:
        """These states alone, in this order: copies, or itself where these are all as they are."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        return BatchStates(
            self.heads[rows],
            self.windows[rows],
            self.memories[rows],
            self.dropped[rows],
            self.read[rows],
            [self.last_event_ids[row] for row in rows.tolist()],
        )

    def erase(self, row: int, at_ms: int) -> bool:
        """`ProfileState.erased` in place, which touches the state; False where it is no news."""
        head = self.heads[row]
        if head["touched"] < 0:
            head["touched"] = self.heads["touched"].max() + 1
        if at_ms <= head["erased_at_ms"]:
            return False
        one, touched = BatchStates.decoded([None]), head["touched"]
        self.heads[row], self.read[row], self.last_event_ids[row] = one.heads[0], one.read[0], ""
        head["erased_at_ms"], head["touched"] = at_ms, touched
        return True

    def touched(self) -> NDArray[np.intp]:
        """The rows of the states that events or erasures touched, in the order of the first."""
        place = self.heads["touched"]
        rows = np.argsort(place, kind="stable")
        return rows[place[rows] >= 0]

    def take_in(
        self,
        events: NDArray[Any],
        interactions: InteractionArray,
        event_ids: Sequence[str],
        rules: Rules,
        lateness_ms: int,
    ) -> TakenIn:
        """Take events in, in their order.

        Args:
            events: `[E]` of `stream.domain.taking_in.EVENT`.
            interactions: `[E]`, of those events that make one.
            event_ids: `[E]`.
            rules: those that the states were decoded for.
            lateness_ms: how far event time may be behind the broker's.
        """
        taken = TakenIn(np.empty(len(events), np.int8), np.zeros(len(events), np.bool_))
        take_in(
            events,
            interactions,
            self.heads,
            self.windows,
            self.memories,
            self.dropped,
            self.read,
            rules.window_length,
            rules.memory_length,
            lateness_ms,
            *rules.durations.columns,
            int(self.heads["touched"].max(initial=-1)) + 1,
            *taken,
        )
        newest = self.heads["last_event"]
        for row in np.flatnonzero(newest >= 0).tolist():
            self.last_event_ids[row] = event_ids[newest[row]]
        newest[newest >= 0] = OLDER
        return taken

    def sequence_no(self) -> NDArray[np.int64]:
        """`[S]`: the version of each state, as `ProfileState.sequence_no`."""
        numbers = self.heads["folded"].copy()
        _add_measure(self.windows, self.heads["window"], numbers)
        return numbers


def _rows(lengths: NDArray[np.int64], least: int, more: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Room for the entries of each state, and for `more` than there are or may be."""
    return np.empty((len(lengths), max(int(lengths.max(initial=0)), least) + more), dtype)


def _lengths(heads: NDArray[Any]) -> NDArray[np.int64]:
    """`[S, 3]`: bytes of each window, memory and list of dropped keys."""
    return np.stack(
        [
            heads["window"] * INTERACTION.itemsize,
            heads["memory"] * MEMORY.itemsize,
            heads["dropped"] * 8,
        ],
        axis=1,
    )


def _bytes_of(rows: NDArray[Any]) -> NDArray[np.uint8]:
    return rows.view(np.uint8)


@compiled
def _unpack(
    data: NDArray[np.uint8],
    begin: NDArray[np.int64],
    lengths: NDArray[np.int64],
    windows: NDArray[np.uint8],
    memories: NDArray[np.uint8],
    dropped: NDArray[np.uint8],
) -> None:
    for row in range(len(begin)):
        first = begin[row]
        middle = first + lengths[row, 0]
        last = middle + lengths[row, 1]
        windows[row, : lengths[row, 0]] = data[first:middle]
        memories[row, : lengths[row, 1]] = data[middle:last]
        dropped[row, : lengths[row, 2]] = data[last : last + lengths[row, 2]]


@compiled
def _pack(
    rows: NDArray[np.intp],
    headers: NDArray[np.uint8],
    ids: NDArray[np.uint8],
    id_begin: NDArray[np.int64],
    lengths: NDArray[np.int64],
    windows: NDArray[np.uint8],
    memories: NDArray[np.uint8],
    dropped: NDArray[np.uint8],
    out: NDArray[np.uint8],
    begin: NDArray[np.int64],
) -> None:
    for number in range(len(rows)):
        row = rows[number]
        at = begin[number]
        end = at + headers.shape[1]
        out[at:end] = headers[number]
        at, end = end, end + id_begin[number + 1] - id_begin[number]
        out[at:end] = ids[id_begin[number] : id_begin[number + 1]]
        at, end = end, end + lengths[number, 0]
        out[at:end] = windows[row, : lengths[number, 0]]
        at, end = end, end + lengths[number, 1]
        out[at:end] = memories[row, : lengths[number, 1]]
        at, end = end, end + lengths[number, 2]
        out[at:end] = dropped[row, : lengths[number, 2]]


@compiled
def _add_measure(
    windows: InteractionArray, lengths: NDArray[np.int64], numbers: NDArray[np.int64]
) -> None:
    for row in range(len(numbers)):
        numbers[row] += measure(windows[row, : lengths[row]])
