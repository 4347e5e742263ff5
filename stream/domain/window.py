"""The windows of profiles as the model is sent them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.domain.actions import mark_actions
from stream.domain.batch_states import BatchStates
from stream.domain.compiled import compiled
from stream.domain.interactions import InteractionArray
from stream.domain.labels import hash64
from stream.domain.profile_state import ProfileState
from stream.domain.progress import share_of
from stream.domain.rules import Rules
from stream.domain.version_labels import VersionLabels

FORGET: Final = -1
"""The `sequence_no` of a row whose profile the model is to forget."""

_PER_WINDOW: Final = ("length", "profile_hash", "sequence_no")


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows of B profiles, right-padded to the longest of them (L).

    The fields are the inputs of the Triton model `fm_intent`, by name.
    """

    title_hash: NDArray[np.int64]
    """`[B, L]`; `NO_TITLE` for a search without a title, and for padding."""
    action: NDArray[np.int32]
    """`[B, L]` indices into `ACTIONS`."""
    start_ms: NDArray[np.int64]
    """`[B, L]` event time of each interaction's start, ascending."""
    watched_share: NDArray[np.float32]
    """`[B, L]` in 0..1; -1 where unknown."""
    device: NDArray[np.uint32] | NDArray[np.int32]
    """`[B, L]` `device_hash` of each one's device, 0 where there is none; once `numbered`, the
    devices' numbers."""
    length: NDArray[np.int32]
    """`[B, 1]` interactions in each window."""
    profile_hash: NDArray[np.int64]
    """`[B, 1]` hash64 of the profile id."""
    sequence_no: NDArray[np.int64]
    """`[B, 1]` version of each profile's state, or `FORGET`."""

    def __len__(self) -> int:
        return len(self.length)

    def unkept(self) -> WindowBatch:
        """The same, of profiles that are to take nobody's place in the model's cache."""
        return replace(self, sequence_no=np.full_like(self.sequence_no, FORGET))

    def numbered(self, labels: VersionLabels) -> WindowBatch:
        """The same as a version with these labels is asked."""
        return replace(self, device=labels.device_numbers(self.device.astype(np.uint32)))

    def rows(self, rows: NDArray[np.intp]) -> WindowBatch:
        """These rows alone, in this order, padded to the longest of them."""
        longest = int(self.length[rows].max(initial=0))
        return WindowBatch(
            **{
                f.name: np.ascontiguousarray(getattr(self, f.name)[rows, :longest])
                for f in fields(WindowBatch)
            }
        )


def window_batch(profiles: Sequence[tuple[str, ProfileState]], rules: Rules) -> WindowBatch:
    """`windows_of` profiles with their states."""
    states = BatchStates.of(state for _, state in profiles)
    return windows_of([name for name, _ in profiles], states, rules)


def windows_of(profile_ids: Sequence[str], states: BatchStates, rules: Rules) -> WindowBatch:
    """The windows of profiles, in their order; what they name a version's labels number."""
    rows = len(states)
    length = states.heads["window"]
    longest = int(length.max(initial=0))
    batch = WindowBatch(
        title_hash=np.zeros((rows, longest), np.int64),
        action=np.zeros((rows, longest), np.int32),
        start_ms=np.zeros((rows, longest), np.int64),
        watched_share=np.full((rows, longest), -1, np.float32),
        device=np.zeros((rows, longest), np.uint32),
        length=length.astype(np.int32)[:, None],
        profile_hash=np.fromiter(map(hash64, profile_ids), np.int64, rows)[:, None],
        sequence_no=states.sequence_no()[:, None],
    )
    _fill(
        states.heads,
        states.windows,
        states.memories,
        *rules.durations.columns,
        batch.title_hash,
        batch.action,
        batch.start_ms,
        batch.watched_share,
        batch.device,
    )
    return batch


@compiled
def _fill(
    heads: NDArray[Any],
    windows: InteractionArray,
    memories: NDArray[Any],
    titles: NDArray[np.int64],
    durations_ms: NDArray[np.int64],
    title_hash: NDArray[np.int64],
    action: NDArray[np.int32],
    start_ms: NDArray[np.int64],
    share: NDArray[np.float32],
    device: NDArray[Any],
) -> None:
    for row in range(len(heads)):
        window = windows[row, : heads[row].window]
        for at in range(len(window)):
            one = window[at]
            title_hash[row, at] = one.title
            start_ms[row, at] = one.start_ms
            share[row, at] = share_of(one, titles, durations_ms)
            device[row, at] = one.device
        mark_actions(memories[row, : heads[row].memory], window, share[row], action[row])


def joined_windows(batches: Sequence[WindowBatch]) -> WindowBatch:
    """The windows of all batches, one after the other, padded to the longest of them."""
    longest = max(batch.title_hash.shape[1] for batch in batches)

    def column(name: str) -> NDArray[Any]:
        parts = [getattr(batch, name) for batch in batches]
        if name not in _PER_WINDOW:
            padding = -1 if name == "watched_share" else 0
            parts = [
                np.pad(part, ((0, 0), (0, longest - part.shape[1])), constant_values=padding)
                for part in parts
            ]
        return np.concatenate(parts)

    return WindowBatch(**{f.name: column(f.name) for f in fields(WindowBatch)})
