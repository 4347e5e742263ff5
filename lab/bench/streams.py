"""Random event streams, as the windows that they make, and cached beside uncached answers to them.

An event appends an interaction, goes on with the newest, comes late, or changes nothing; a full
window drops its oldest half at once. Profiles take turns at random, sometimes twice in one batch,
at two caches that are too small for all of them, either of which may be replaced by an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fm_intent.served.cache import Cache, Counts, profile_bytes
from fm_intent.served.network import FIRST_ROW, NO_ROW, Answer, FMIntent, Interactions

TOP: Final = 20
_START_MS: Final = 1_700_000_000_000
_COHORT: Final = 128
_BATCH: Final = 64
_CELL: Final = np.dtype(
    [
        ("start_ms", np.int64),
        ("title", np.int64),
        ("action", np.int64),
        ("share", np.float32),
        ("device", np.int64),
    ]
)


@dataclass
class Stream:
    """One profile's window, changed by one random event after another."""

    window: int
    rng: np.random.Generator
    titles: int
    rows: NDArray[np.void] = field(init=False)
    """Never changed in place."""

    def __post_init__(self) -> None:
        self.rows = np.empty(0, _CELL)
        for _ in range(int(self.rng.integers(1, 2 * self.window))):
            self._append()

    def step(self) -> None:
        """Take in an event."""
        kind = self.rng.random()
        if kind < 0.5:
            self._append()
        elif kind < 0.8:
            self.rows = self.rows.copy()
            self.rows["share"][-1] = min(1.0, abs(self.rows["share"][-1]) + 0.1)
        elif kind < 0.95:
            self._insert(int(self.rng.integers(len(self.rows) + 1)))

    def _append(self) -> None:
        self._insert(len(self.rows))

    def _insert(self, place: int) -> None:
        """At `place`, with the time of the one that is there, or later than all."""
        rng, rows = self.rng, self.rows
        if place < len(rows):
            start = int(rows["start_ms"][place])
        else:
            last = int(rows["start_ms"][-1]) if len(rows) else _START_MS
            start = last + int(rng.choice([0, 60_000, 3_600_000, 500_000_000]) * rng.random())
        title = NO_ROW if rng.random() < 0.1 else int(rng.integers(1, FIRST_ROW + self.titles))
        share = float(rng.choice([-1.0, rng.random()]))
        one = np.array([(start, title, rng.integers(7), share, rng.integers(6))], _CELL)
        rows = np.concatenate([rows[:place], one, rows[place:]])
        self.rows = rows[self.window // 2 :] if len(rows) > self.window else rows


class Comparison(NamedTuple):
    """What came of comparing cached with uncached answers."""

    streams: int
    windows: int
    max_abs_diff: float
    counts: Counts


def windows(rows: list[NDArray[np.void]]) -> Interactions:
    """The windows of these rows, right-padded to the longest."""
    length = list(map(len, rows))
    cells = np.zeros((len(rows), max(length)), _CELL)
    for place, one in enumerate(rows):
        cells[place, : len(one)] = one
    title, action, start, share, device = (
        torch.from_numpy(cells[name].copy())
        for name in ("title", "action", "start_ms", "share", "device")
    )
    return Interactions(title, action, start, share, device, torch.tensor(length))


def differences(one: Answer, other: Answer) -> float:
    """The largest absolute difference of two answers' numbers.

    Titles are compared by their probabilities: those that are equal but for rounding may change
    places.
    """
    pairs = [
        *zip(one.intent_probs, other.intent_probs, strict=True),
        (one.attention_BM, other.attention_BM),
        (one.intent_BD, other.intent_BD),
        (one.next_title_score, other.next_title_score),
        (one.title_log_norm_B1, other.title_log_norm_B1),
        (one.user_BD, other.user_BD),
    ]
    return max(float((a - b).abs().max()) for a, b in pairs)


@torch.inference_mode()
def compare(
    model: FMIntent,
    wanted: str,
    streams: int,
    events: int,
    window: int,
    seed: int,
) -> Comparison:
    """Answer random event streams with and without a cache.

    Args:
        model: in evaluation mode.
        wanted: the cache's pass, as in `Cache`.
        streams: how many profiles.
        events: of each, about; after each of them its window is asked for.
        window: interactions that it holds at most.
        seed: same seed, same streams.
    """
    rng = np.random.default_rng(seed)
    titles = model.titles()
    worst, asked, counts = 0.0, 0, Counts()

    def fresh() -> Cache:
        room = _COHORT * 3 // 4 * profile_bytes(model, window, wanted)
        return Cache(model, TOP, window, room, wanted)

    caches = [fresh(), fresh()]
    for first in range(0, streams, _COHORT):
        cohort = {
            number: Stream(window, rng, model.domain.vocabulary)
            for number in range(first, min(first + _COHORT, streams))
        }
        for _ in range(len(cohort) * events // _BATCH):
            place = int(rng.random() < 0.2)
            if rng.random() < 0.02:
                counts += caches[place].counts
                caches[place] = fresh()
            numbers = rng.choice(list(cohort), _BATCH)
            rows = []
            for number in numbers:
                cohort[number].step()
                rows.append(cohort[number].rows)
            x = windows(rows)
            cached = caches[place].answer(torch.from_numpy(numbers), x)
            worst = max(worst, differences(cached, model.answer(x, titles, TOP)))
            asked += _BATCH
    for cache in caches:
        counts += cache.counts
    return Comparison(streams, asked, worst, counts)
