"""Events taken into the states of a batch, in the order of their arrival, by one compiled loop.

The rules are those of `stream.domain.profile_state`, whose `ProfileState.apply` says the same of a
single event; a property test holds the two together.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.domain.compiled import compiled
from stream.domain.event_types import PLAY
from stream.domain.interactions import InteractionArray, measure
from stream.domain.progress import progress_at, share_of

HEAD: Final = np.dtype(
    [
        ("window", "<i8"),
        ("memory", "<i8"),
        ("dropped", "<i8"),
        ("horizon_ms", "<i8"),
        ("horizon_key", "<i8"),
        ("folded", "<i8"),
        ("last_at_ms", "<i8"),
        ("last_hash", "<i8"),
        ("last_event", "<i8"),
        ("erased_at_ms", "<i8"),
        ("touched", "<i8"),
    ]
)
"""What a state has one of. `window`, `memory` and `dropped` count its entries; `last_hash` is that
of the newest event's id; `last_event` the number of that event in the batch, or `OLDER` or `NONE`;
`touched` the place in the order in which the batch's events touched states, -1 where none did."""

OLDER: Final = -1
"""The newest event is one of before the batch."""
NONE: Final = -2
"""There is no event yet."""

EVENT: Final = np.dtype(
    [
        ("state", "<i8"),
        ("at_ms", "<i8"),
        ("broker_ms", "<i8"),
        ("read_ms", "<i8"),
        ("read_offset", "<i8"),
        ("read_partition", "<i4"),
        ("is_browse", "u1"),
        ("has_state", "u1"),
    ]
)
"""One event of a batch: the number of its profile's state, -1 where nothing is to be done with it;
event time and broker time; where its record stands (`LogPosition`) in which of the two topics;
whether it makes an interaction."""

APPLIED: Final = 0
UNCHANGED: Final = 1
STATELESS: Final = 2
ERASED: Final = 3
BEHIND_BROKER: Final = 4
BEFORE_WINDOW: Final = 5


@compiled
def take_in(
    events: NDArray[Any],
    interactions: InteractionArray,
    heads: NDArray[Any],
    windows: InteractionArray,
    memories: NDArray[Any],
    dropped: NDArray[np.int64],
    read: NDArray[np.int64],
    window_length: int,
    memory_length: int,
    lateness_ms: int,
    titles: NDArray[np.int64],
    durations_ms: NDArray[np.int64],
    first_touch: int,
    outcomes: NDArray[np.int8],
    reached: NDArray[np.bool_],
) -> int:
    """Take events in; return how many states were touched, `first_touch` included.

    Args:
        events: `[E]` of `EVENT`.
        interactions: `[E]`, of those events that make one.
        heads: `[S]` of `HEAD`.
        windows: `[S, cap]`.
        memories: `[S, cap]` of `MEMORY`.
        dropped: `[S, cap]` keys.
        read: `[S, 2, 3]` newest `LogPosition` of either topic.
        window_length: of `Rules`.
        memory_length: of `Rules`.
        lateness_ms: how far event time may be behind the broker's.
        titles: of `Durations.columns`.
        durations_ms: of `Durations.columns`.
        first_touch: states that were touched before.
        outcomes: `[E]`, written.
        reached: `[E]`, written: whether the event touched its state.
    """
    spare = np.empty(1, windows.dtype)
    touched = first_touch
    for number in range(len(events)):
        event = events[number]
        if event.state < 0:
            continue
        head = heads[event.state]
        if event.at_ms < event.broker_ms - lateness_ms:
            erased = event.at_ms <= head.erased_at_ms
            outcomes[number] = ERASED if erased else BEHIND_BROKER
            continue
        if not event.has_state:
            outcomes[number] = STATELESS
            continue
        reached[number] = True
        if head.touched < 0:
            head.touched = touched
            touched += 1
        if min(event.at_ms, event.broker_ms) <= head.erased_at_ms:
            outcomes[number] = ERASED
            continue
        outcomes[number] = _apply(
            event,
            number,
            interactions[number],
            head,
            windows[event.state],
            memories[event.state],
            dropped[event.state],
            read[event.state, event.is_browse],
            spare,
            window_length,
            memory_length,
            titles,
            durations_ms,
        )
    return touched


@compiled
def _apply(
    event: Any,
    number: int,
    one: Any,
    head: Any,
    window: InteractionArray,
    memory: NDArray[Any],
    dropped: NDArray[np.int64],
    read: NDArray[np.int64],
    spare: InteractionArray,
    window_length: int,
    memory_length: int,
    titles: NDArray[np.int64],
    durations_ms: NDArray[np.int64],
) -> int:
    was_read = _is_read(event, read)
    row = _find(window, head.window, one.key)
    if row < 0 and _is_beyond(one, head, dropped):
        return UNCHANGED if was_read else BEFORE_WINDOW
    is_newest = event.at_ms > head.last_at_ms or (
        event.at_ms == head.last_at_ms
        and (head.last_event == NONE or one.described_by > head.last_hash)
    )
    if is_newest:
        head.last_at_ms = event.at_ms
        head.last_hash = one.described_by
        head.last_event = number
    if row >= 0:
        return APPLIED if _join_at(window, row, one, head, spare) or is_newest else UNCHANGED
    _insert(window, head.window, one)
    head.window += 1
    while head.window > window_length:
        _drop_oldest(
            window, head, memory, dropped, window_length // 2, memory_length, titles, durations_ms
        )
    return APPLIED


@compiled
def _is_read(event: Any, newest: NDArray[np.int64]) -> bool:
    """`LogPosition.is_read` of the event's record, which is then the newest if it is newer."""
    at_ms, partition, offset = event.read_ms, np.int64(event.read_partition), event.read_offset
    was_read = (
        partition >= 0 and partition == newest[1] and at_ms <= newest[0] and offset <= newest[2]
    )
    if (at_ms, partition, offset) > (newest[0], newest[1], newest[2]):
        newest[0], newest[1], newest[2] = at_ms, partition, offset
    return bool(was_read)


@compiled
def _find(window: InteractionArray, length: int, key: int) -> int:
    """The row of an interaction, the newest first; -1 where it isn't."""
    row = length - 1
    while row >= 0 and window[row].key != key:
        row -= 1
    return row


@compiled
def _is_beyond(one: Any, head: Any, dropped: NDArray[np.int64]) -> bool:
    if (one.start_ms, one.key) <= (head.horizon_ms, head.horizon_key):
        return True
    return bool(np.any(dropped[: head.dropped] == one.key))


@compiled
def _join_at(
    window: InteractionArray, row: int, one: Any, head: Any, spare: InteractionArray
) -> bool:
    """`stream.domain.interactions.join` of a row with one more report; False if that is no news."""
    known = window[row]
    is_description = _description(one) < _description(known)
    if not (
        is_description
        or one.end_ms > known.end_ms
        or one.watched_ms > known.watched_ms
        or one.position_ms > known.position_ms
        or one.duration_ms > known.duration_ms
        or one.complete > known.complete
    ):
        return False
    spare[0] = one if is_description else known
    both = spare[0]
    both.end_ms = max(one.end_ms, known.end_ms)
    both.watched_ms = max(one.watched_ms, known.watched_ms)
    both.position_ms = max(one.position_ms, known.position_ms)
    both.duration_ms = max(one.duration_ms, known.duration_ms)
    both.complete = one.complete | known.complete
    if both.start_ms == known.start_ms:
        window[row] = both
    else:
        for later in range(row, head.window - 1):
            window[later] = window[later + 1]
        _insert(window, head.window - 1, both)
    return True


@compiled
def _description(one: Any) -> tuple[int, ...]:
    return (
        one.start_ms,
        one.described_by,
        one.title,
        one.season,
        one.episode,
        one.device,
        one.verb,
    )


@compiled
def _insert(window: InteractionArray, length: int, one: Any) -> None:
    row = length
    while row > 0 and (window[row - 1].start_ms, window[row - 1].key) > (one.start_ms, one.key):
        window[row] = window[row - 1]
        row -= 1
    window[row] = one


@compiled
def _drop_oldest(
    window: InteractionArray,
    head: Any,
    memory: NDArray[Any],
    dropped: NDArray[np.int64],
    block: int,
    memory_length: int,
    titles: NDArray[np.int64],
    durations_ms: NDArray[np.int64],
) -> None:
    plays = 0
    for row in range(block):
        one = window[row]
        dropped[row] = one.key
        if one.verb == PLAY:
            plays += 1
            progress = progress_at(one, share_of(one, titles, durations_ms))
            _remember(memory, head, one.title, progress, one.end_ms)
    if plays:
        _forget_oldest(memory, head, memory_length)
    dropped[:block].sort()
    head.dropped = block
    head.folded += measure(window[:block])
    head.horizon_ms = window[block - 1].start_ms
    head.horizon_key = window[block - 1].key
    for row in range(block, head.window):
        window[row - block] = window[row]
    head.window -= block


@compiled
def _remember(memory: NDArray[Any], head: Any, title: int, progress: int, last_ms: int) -> None:
    low, high = 0, head.memory
    while low < high:
        middle = (low + high) >> 1
        if memory[middle].title < title:
            low = middle + 1
        else:
            high = middle
    if low < head.memory and memory[low].title == title:
        memory[low].progress = max(memory[low].progress, progress)
        memory[low].last_ms = max(memory[low].last_ms, last_ms)
        return
    for row in range(head.memory, low, -1):
        memory[row] = memory[row - 1]
    memory[low].title = title
    memory[low].progress = progress
    memory[low].last_ms = last_ms
    head.memory += 1


@compiled
def _forget_oldest(memory: NDArray[Any], head: Any, most: int) -> None:
    """Keep the latest titles; of one time the larger hashes, which stand behind."""
    while head.memory > most:
        oldest = 0
        for row in range(1, head.memory):
            if memory[row].last_ms < memory[oldest].last_ms:
                oldest = row
        for row in range(oldest, head.memory - 1):
            memory[row] = memory[row + 1]
        head.memory -= 1
