"""Histories as arrays: vocabulary, targets, splits, crops as in serving.

All profiles lie one behind the other in flat columns; `[N]` is the number of all interactions and
`[P]` that of profiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fm_intent.data.catalogue import SourceCatalogue
from fm_intent.data.histories import HistoryColumns, read_histories
from fm_intent.served.network import (
    FIRST_ROW,
    NO_ROW,
    UNKNOWN_DAY,
    UNKNOWN_ROW,
    Domain,
    Interactions,
    TitleTable,
)
from stream.domain.heads import HEADS, INTENTS, Entries, Head, OfAge, OfInteraction, OfTitle
from stream.domain.labels import (
    ACTIONS,
    NO_TITLE,
    RELEASE_AGE_EDGES_DAYS,
)
from stream.domain.version_labels import BUILT_IN, VersionLabels
from stream.exceptions import DataUnusableError

PLAYS: Final = tuple(ACTIONS.index(name) for name in ("discover", "continue", "rewatch"))
"""Action types that play a title."""


def window_start(context: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Where the served window of the first `context` interactions of a history begins.

    A window that would hold more than `length` drops its oldest half at once, so it begins at a
    multiple of `length // 2` and a long history's holds more than half of `length`.
    """
    block = length // 2
    return block * np.maximum(0, -(-(context - length) // block))


class Crop(NamedTuple):
    """A window over the flat columns: `[start, end)`; the loss counts from `counted` on."""

    start: int
    end: int
    counted: int


class TrainingBatch(NamedTuple):
    """Windows and what comes after each of their interactions."""

    interactions: Interactions
    next_play_BL: torch.Tensor
    """int64, the next play's candidate (row - 2); -1 where there is none to learn."""
    play_ms_BL: torch.Tensor
    """int64, when the next play happens, also where it isn't for learning; after the last play,
    anything."""
    play_weight_BL: torch.Tensor
    """float32, from the watch time of the next play."""
    intents: tuple[torch.Tensor, ...]
    """Per head, the label of the next interaction: int64 `[B, L]`, -1 where unknown; of a head with
    several labels at a time float32 `[B, L, C]`, the share of each, all 0 where unknown."""
    weight_BL: torch.Tensor
    """float32, from the watch time of the next interaction."""

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The same on `device`."""
        return TrainingBatch(
            self.interactions.to(device),
            self.next_play_BL.to(device),
            self.play_ms_BL.to(device),
            self.play_weight_BL.to(device),
            tuple(one.to(device) for one in self.intents),
            self.weight_BL.to(device),
        )


class Context(NamedTuple):
    """Held-out next plays: of each profile, what came before and what came."""

    profile: NDArray[np.int64]
    start: NDArray[np.int64]
    """Where the window begins in the flat columns."""
    end: NDArray[np.int64]
    """The held-out interaction: the window ends before it."""


Part = Literal["validation", "test"]

Split = Literal["leave-one-out", "global-time"]

_PERIODS: Final = (0.8, 0.9)
"""Shares of all plays that come before validation and before testing, by time."""


class Sequences:
    """A source ready for training and evaluation.

    Leave-one-out: of each profile with at least three plays the last play is for testing, the one
    before for validation, and everything before that is for training. Profiles with fewer plays
    are for training alone.

    By global time: all that happened before one moment is for training, what happened from a later
    one on is for testing, and what lies between is for validation, so that nothing is learned from
    the future of anybody. Of each held-out period one play of each profile is drawn, always the
    same, of a title that was played in the training part; plays of other titles can't be ranked and
    are left out. Its context is all that came before it, as in serving: also what came after the
    training. A profile without context has none.

    Args:
        columns: the interactions.
        catalogue: of the same source.
        split: what is for training, validation and testing.

    Attributes:
        columns: the interactions.
        row: `[N]` int64, title rows.
        labels: of the source.
        table: the title table: first the titles that are scored, then the rest.
        domain: label sets, and what this data can teach.
        candidates: `[V]` indices into the catalogue, of each title that is scored: those that were
            played, by global time in the training part; in order of release.
    """

    def __init__(
        self, columns: HistoryColumns, catalogue: SourceCatalogue, split: Split = "leave-one-out"
    ) -> None:
        if len(columns.title_hash) == 0:
            raise DataUnusableError("the source has no interaction; prepare its data again")
        self.columns = columns
        self.labels = catalogue.labels
        self._play = np.isin(columns.action, PLAYS)
        self._period = np.zeros(len(columns.title_hash), np.int64)
        if split == "global-time":
            borders = np.quantile(columns.start_ms[self._play], _PERIODS)
            self._period = np.searchsorted(borders, columns.start_ms, side="right")
        in_reach = self._play & (self._period == 0)
        played = np.isin(catalogue.title_hash, columns.title_hash[in_reach])
        scored = np.flatnonzero(played)
        self.candidates = scored[np.argsort(catalogue.release_day[scored], kind="stable")]
        self.table = _table(catalogue, np.append(self.candidates, np.flatnonzero(~played)))
        self.row = self._rows()
        self._known = self._play & (self.row >= FIRST_ROW)
        self._known &= self.row < FIRST_ROW + len(self.candidates)
        self._first = np.repeat(columns.offset[:-1], np.diff(columns.offset))
        self._profile = np.repeat(np.arange(self.profiles), np.diff(columns.offset))
        if split == "global-time":
            self._hold_out_by_time()
        else:
            self._hold_out_last()
        self._targets()
        self.domain = self._domain()

    @property
    def profiles(self) -> int:
        """P."""
        return len(self.columns.offset) - 1

    def crops(self, length: int, mode: Literal["served", "recent"]) -> list[Crop]:
        """Windows over the training part.

        Args:
            length: interactions of a window at most.
            mode: `served` gives every interaction the very context that serving would give it;
                `recent` takes the latest window of each profile alone, as benchmarks do.
        """
        crops = []
        block = length // 2
        for first, end in zip(self.columns.offset[:-1], self._train_end, strict=True):
            context = int(end - first) - 1  # the last one has nothing to predict
            if context < 1:
                continue
            if mode == "recent":
                start = max(int(first), int(end) - 1 - length)
                crops.append(Crop(start, int(end) - 1, start))
                continue
            last = int(window_start(np.array(context), length))
            for begin in range(0, last + 1, block):
                start = int(first) + begin
                counted = start + (length - block if begin else 0)
                crops.append(Crop(start, min(start + length, int(end) - 1), counted))
        return crops

    def random_cuts(self, length: int, rng: np.random.Generator) -> list[Crop]:
        """Windows of at most `length` interactions that cover the training part once.

        Each history is cut at a random place and at every `length` from there on, so that over the
        epochs an interaction is met with contexts of all lengths.
        """
        crops = []
        for first, end in zip(self.columns.offset[:-1], self._train_end, strict=True):
            last = int(end) - 1  # has nothing to predict
            phase = int(rng.integers(1, length + 1)) if last - first > length else length
            cuts = [int(first), *range(int(first) + phase, last, length), last]
            crops += [Crop(a, b, a) for a, b in pairwise(cuts) if b > a]
        return crops

    def batch(self, crops: list[Crop]) -> TrainingBatch:
        """These windows, padded to the longest."""
        start, end, counted = np.array(crops).T
        at, inside = _indices(start, end)
        learn = inside & (at >= counted[:, None]) & (at + 1 < self._train_end_of(at))
        play = np.where(learn & self._has_next_play(at), self._next_play[at], -1)
        following = np.minimum(at + 1, len(self.row) - 1)
        weight = self._weight
        return TrainingBatch(
            interactions=self._interactions(at, inside),
            next_play_BL=torch.from_numpy(np.where(play >= 0, self.row[play] - FIRST_ROW, -1)),
            play_ms_BL=torch.from_numpy(
                self.columns.start_ms[np.minimum(self._next_play[at], len(self.row) - 1)]
            ),
            play_weight_BL=torch.from_numpy(weight[play]),
            intents=self._intents(following, learn),
            weight_BL=torch.from_numpy(weight[following]),
        )

    def contexts(self, part: Part, length: int, mode: Literal["served", "recent"]) -> Context:
        """The held-out next plays of `part`, with the window that each is predicted from."""
        end = self._test if part == "test" else self._validation
        return self._contexts_before(end, length, mode)

    def last_contexts(self, length: int, mode: Literal["served", "recent"]) -> Context:
        """The last interaction of each profile that has a test part, whatever its action type.

        It was never trained on, and intents are judged on it: a held-out play would say that the
        next action type is a play.
        """
        return self._contexts_before(self.columns.offset[1:][self._has_test] - 1, length, mode)

    def validation_interactions(self, length: int, mode: Literal["served", "recent"]) -> Context:
        """One interaction of each profile's validation part, of any action type.

        One is drawn, always the same, of those that were neither trained on nor are for testing.
        """
        rng = np.random.default_rng(0)
        return self._contexts_before(
            rng.integers(self._validation, self._validation_end), length, mode
        )

    def windows(self, contexts: Context) -> Interactions:
        """The windows of `contexts`."""
        return self._interactions(*_indices(contexts.start, contexts.end))

    def asked_ms(self, contexts: Context) -> torch.Tensor:
        """When each position's next play happens, or what is held out: int64 `[B, L]`.

        For networks that are told; that of a row's newest position is the time of what is held out.
        """
        at, _ = _indices(contexts.start, contexts.end)
        coming = np.minimum(self._next_play[at], contexts.end[:, None])
        return torch.from_numpy(self.columns.start_ms[coming])

    def targets(self, contexts: Context) -> NDArray[np.int64]:
        """The candidates that came, `[len(contexts)]`."""
        return self.row[contexts.end] - FIRST_ROW

    def intents(self, contexts: Context) -> tuple[torch.Tensor, ...]:
        """The held-out interaction of each context, like `TrainingBatch.intents` with L = 1."""
        at = contexts.end[:, None]
        return self._intents(at, np.ones_like(at, bool))

    def just_opened(self, contexts: Context) -> NDArray[np.bool_]:
        """`[len(contexts)]`, where the profile looked at the held-out title right before it."""
        before = contexts.end - 1
        opened: NDArray[np.bool_] = ~self._play[before] & (
            self.row[before] == self.row[contexts.end]
        )
        return opened

    def seen(self, contexts: Context) -> NDArray[np.bool_]:
        """`[len(contexts), V]`, what was played before, in the whole history."""
        seen = np.zeros((len(contexts.end), self.domain.vocabulary), np.bool_)
        for row, (profile, end) in enumerate(zip(contexts.profile, contexts.end, strict=True)):
            rows = slice(self.columns.offset[profile], end)
            seen[row, self.row[rows][self._known[rows]] - FIRST_ROW] = True
        return seen

    def popularity(self) -> NDArray[np.float32]:
        """`[V]`, plays of each candidate in the training part."""
        trained = self._known & (np.arange(len(self.row)) < self._train_end[self._profile])
        plays = np.bincount(self.row[trained] - FIRST_ROW, minlength=self.domain.vocabulary)
        return plays.astype(np.float32)

    def _rows(self) -> NDArray[np.int64]:
        hashes = self.table.hash_T.numpy()[FIRST_ROW:]
        order = np.argsort(hashes)
        found = np.searchsorted(hashes[order], self.columns.title_hash)
        found = np.minimum(found, len(hashes) - 1)
        known = hashes[order][found] == self.columns.title_hash
        rows = np.where(known, order[found] + FIRST_ROW, UNKNOWN_ROW)
        return np.where(self.columns.title_hash == NO_TITLE, NO_ROW, rows)

    def _hold_out_last(self) -> None:
        plays = np.flatnonzero(self._known)
        count = np.bincount(self._profile[plays], minlength=self.profiles)
        self._has_test = count >= 3
        last = np.cumsum(count)[self._has_test]
        self._test, self._validation = plays[last - 1], plays[last - 2]
        self._validation_end = self._test
        self._train_end = self.columns.offset[1:].copy()
        self._train_end[self._has_test] = self._validation

    def _hold_out_by_time(self) -> None:
        rng = np.random.default_rng(0)
        has_context = np.arange(len(self.row)) > self._first

        def drawn(period: int) -> NDArray[np.int64]:
            plays = np.flatnonzero(self._known & has_context & (self._period == period))
            plays = rng.permutation(plays)
            return plays[np.unique(self._profile[plays], return_index=True)[1]]

        self._validation, self._test = drawn(1), drawn(2)
        until_testing = np.bincount(self._profile[self._period < 2], minlength=self.profiles)
        self._validation_end = (self.columns.offset[:-1] + until_testing)[
            self._profile[self._validation]
        ]
        self._has_test = np.isin(np.arange(self.profiles), self._profile[self._test])
        early = self._profile[self._period == 0]
        trained = np.bincount(early, minlength=self.profiles)
        self._train_end = self.columns.offset[:-1] + trained

    def _targets(self) -> None:
        count = len(self.row)
        at_or_after = np.where(self._known, np.arange(count), count)
        at_or_after = np.minimum.accumulate(at_or_after[::-1])[::-1]
        self._next_play = np.append(at_or_after[1:], count)
        shares_TC = _by_head(self.table.shares_TC.numpy(), self.labels)
        self._labels = [self._labels_of(head, shares_TC) for head in HEADS]
        watched = np.log1p(np.maximum(self.columns.watched_ms, 0) / 60_000)
        measured = watched > 0
        weight = np.ones(count, np.float32)
        if measured.any():
            weight[measured] = watched[measured] / watched[measured].mean()
        self._weight = weight

    def _labels_of(self, head: Head, shares_TC: dict[str, NDArray[np.float32]]) -> NDArray[Any]:
        """Each interaction's label, `[N]`, -1 where unknown.

        Of a head with several labels at a time, each title row's shares, `[T, C]`.
        """
        if isinstance(head.label, OfInteraction):
            return head.label.code(self.columns)
        if isinstance(head.label, OfTitle):
            shares = shares_TC[head.name]
            code = np.where(shares.any(1), shares.argmax(1), -1)
            return shares if head.several else code[self.row]
        day = self.columns.start_ms // 86_400_000
        release = self.table.release_day_T.numpy()[self.row]
        age = np.searchsorted(RELEASE_AGE_EDGES_DAYS, day - release, side="right")
        return np.where(release == UNKNOWN_DAY, -1, age)

    def _labels_met(self, head: Head, labels: NDArray[Any], trained: NDArray[np.bool_]) -> int:
        """How many of a head's labels the training part has."""
        if head.several:
            return int((labels[np.unique(self.row[trained])] > 0).any(0).sum())
        return len(np.unique(labels[trained & (labels >= 0)]))

    def _domain(self) -> Domain:
        trained = np.arange(len(self.row)) < self._train_end[self._profile]
        played = self._profile[self._play] * np.int64(len(self.table.hash_T))
        played = played + self.row[self._play]
        return domain(
            tuple(
                self._labels_met(head, labels, trained) > 1
                for head, labels in zip(HEADS, self._labels, strict=True)
            ),
            repeats=len(np.unique(played)) < len(played),
            vocabulary=len(self.candidates),
            labels=self.labels,
        )

    def _contexts_before(
        self, end: NDArray[np.int64], length: int, mode: Literal["served", "recent"]
    ) -> Context:
        first = self._first[end]
        context = end - first
        start = window_start(context, length) if mode == "served" else context - length
        return Context(self._profile[end], first + np.maximum(start, 0), end)

    def _train_end_of(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        ends: NDArray[np.int64] = self._train_end[self._profile[at]]
        return ends

    def _has_next_play(self, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        has: NDArray[np.bool_] = self._next_play[at] < self._train_end_of(at)
        return has

    def _interactions(self, at: NDArray[np.int64], inside: NDArray[np.bool_]) -> Interactions:
        c = self.columns
        return Interactions(
            title_BL=torch.from_numpy(np.where(inside, self.row[at], NO_ROW)),
            action_BL=torch.from_numpy(np.where(inside, c.action[at], 0).astype(np.int64)),
            start_ms_BL=torch.from_numpy(np.where(inside, c.start_ms[at], 0)),
            watched_share_BL=torch.from_numpy(
                np.where(inside, c.watched_share[at], -1).astype(np.float32)
            ),
            device_BL=torch.from_numpy(
                np.where(inside, self.labels.device_numbers(c.device[at]), 0).astype(np.int64)
            ),
            length_B=torch.from_numpy(inside.sum(1)),
        )

    def _intents(self, at: NDArray[np.int64], learn: NDArray[np.bool_]) -> tuple[torch.Tensor, ...]:
        def found(head: Head, labels: NDArray[Any]) -> NDArray[Any]:
            if head.several:
                shares: NDArray[np.float32] = labels[np.where(learn, self.row[at], NO_ROW)]
                return shares
            return np.where(learn, labels[at], -1).astype(np.int64)

        return tuple(
            torch.from_numpy(found(head, labels))
            for head, labels in zip(HEADS, self._labels, strict=True)
        )


def domain(
    trained: tuple[bool, ...],
    *,
    repeats: bool,
    vocabulary: int,
    labels: VersionLabels = BUILT_IN,
) -> Domain:
    """All heads and label sets, with what a source gives; see `Domain`."""
    return Domain(
        actions=len(ACTIONS),
        genres=len(labels.genres),
        kinds=len(labels.kinds),
        devices=len(labels.devices),
        release_age_edges_days=RELEASE_AGE_EDGES_DAYS,
        intents=INTENTS,
        classes=tuple(len(labels.of_head(head)) for head in HEADS),
        told=tuple(_told(head) for head in HEADS),
        trained=trained,
        repeats=repeats,
        vocabulary=vocabulary,
    )


_TOLD_BY_ENTRY: Final = {head: head.label for head in HEADS if isinstance(head.label, OfTitle)}


def _told(head: Head) -> Literal["entry", "age", "nothing"]:
    if isinstance(head.label, OfTitle):
        return "entry"
    return "age" if isinstance(head.label, OfAge) else "nothing"


def title_shares(entries: Entries) -> NDArray[np.float32]:
    """`TitleTable.shares_TC` of these titles."""
    return np.concatenate([label.shares(entries) for label in _TOLD_BY_ENTRY.values()], axis=1)


def _by_head(
    shares_TC: NDArray[np.float32], labels: VersionLabels
) -> dict[str, NDArray[np.float32]]:
    """The shares of each head that a title's entry tells."""
    ends = np.cumsum([len(labels.of_head(head)) for head in _TOLD_BY_ENTRY])
    names = [head.name for head in _TOLD_BY_ENTRY]
    return dict(zip(names, np.split(shares_TC, ends[:-1], axis=1), strict=True))


def load(data_dir: Path) -> Sequences:
    """The source in `data_dir`, as the session code sees it.

    Raises:
        DataUnusableError: when the files are missing or hold no interaction.
    """
    return Sequences(read_histories(data_dir), SourceCatalogue.read(data_dir))


def batches(
    crops: list[Crop], interactions: int, rng: np.random.Generator | None
) -> Iterator[list[Crop]]:
    """Crops in batches of similar length.

    Args:
        crops: the windows.
        interactions: of a batch at most, padding included.
        rng: shuffles; without one, the batches come in order of length.
    """
    length = np.array([crop.end - crop.start for crop in crops])
    jitter = rng.uniform(0, 8, len(crops)) if rng is not None else np.zeros(len(crops))
    order = np.argsort(length + jitter, kind="stable")
    groups: list[list[int]] = [[]]
    longest = 0
    for index in order.tolist():
        longest = max(longest, int(length[index]))
        if groups[-1] and longest * (len(groups[-1]) + 1) > interactions:
            groups.append([])
            longest = int(length[index])
        groups[-1].append(index)
    sequence = rng.permutation(len(groups)) if rng is not None else np.arange(len(groups))
    for group in sequence:
        yield [crops[index] for index in groups[group]]


def _indices(
    start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    at = start[:, None] + np.arange(int((end - start).max()))
    inside = at < end[:, None]
    return np.where(inside, at, start[:, None]), inside


def _table(catalogue: SourceCatalogue, order: NDArray[np.intp]) -> TitleTable:
    def behind(no_title: Any, column: NDArray[Any]) -> torch.Tensor:
        nothing = np.full((FIRST_ROW, *column.shape[1:]), no_title, column.dtype)
        return torch.from_numpy(np.concatenate([nothing, column[order]]))

    return TitleTable(
        hash_T=behind(0, catalogue.title_hash),
        genres_TC=behind(0, catalogue.genres),
        kind_T=behind(0, catalogue.kind),
        release_day_T=behind(UNKNOWN_DAY, catalogue.release_day),
        shares_TC=behind(0, title_shares(catalogue)),
    )
