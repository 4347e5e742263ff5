"""Histories as arrays: vocabulary, targets, splits, crops as in serving.

All profiles lie one behind the other in flat columns; `[N]` is the number of all interactions and
`[P]` that of profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from fm_intent.data.catalogue import SourceCatalogue
from fm_intent.data.crops import (
    Crop,
    Crops,
    random_crops,
    recent_crops,
    served_crops,
    window_start,
)
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

Split = Literal["leave-one-out", "global-time", "everything"]

_SHARES: Final = (0.1, 0.1)
"""Of all plays, by time: those for validation, and those for testing behind them."""


_SPAN: Final = 1 << 20
"""Interactions that are looked at at once, more where one profile has more."""


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

    Everything: all is for training, and nothing is held out.

    Args:
        columns: the interactions.
        catalogue: of the same source.
        split: what is for training, validation and testing.
        shares: by global time, the shares of all plays that are for validation and for testing.
        min_plays: titles with fewer plays in the training part are known by their metadata alone.

    Attributes:
        columns: the interactions.
        split: what is for training, validation and testing.
        row: `[N]` int32, title rows.
        labels: of the source.
        table: the title table: first the titles that are scored, then the rest.
        domain: label sets, and what this data can teach.
        candidates: `[V]` indices into the catalogue, of each title that is scored: those that were
            played, by global time in the training part; in order of release.
    """

    def __init__(
        self,
        columns: HistoryColumns,
        catalogue: SourceCatalogue,
        split: Split = "leave-one-out",
        *,
        shares: tuple[float, float] = _SHARES,
        min_plays: int = 1,
    ) -> None:
        if len(columns.title_hash) == 0:
            raise DataUnusableError("the source has no interaction; prepare its data again")
        self.columns = columns
        self.split = split
        self.labels = catalogue.labels
        self._play = self._of_spans(lambda at: np.isin(columns.action[at], PLAYS), np.bool_)
        borders = []
        if split == "global-time":
            validation, test = shares
            before = (1 - validation - test, 1 - test)
            borders = np.quantile(columns.start_ms[self._play], before, overwrite_input=True)
        self._period = self._of_spans(
            lambda at: np.searchsorted(borders, columns.start_ms[at], side="right"), np.int8
        )
        played = self._played_early(catalogue.title_hash, min_plays)
        scored = np.flatnonzero(played)
        self.candidates = scored[np.argsort(catalogue.release_day[scored], kind="stable")]
        self.table = _table(catalogue, np.append(self.candidates, np.flatnonzero(~played)))
        self.row = self._rows()
        known = (self.row >= FIRST_ROW) & (self.row < FIRST_ROW + len(self.candidates))
        self._known = self._play & known
        if split == "global-time":
            self._hold_out_by_time()
        elif split == "everything":
            self._hold_out_nothing()
        else:
            self._hold_out_last()
        self._targets()
        self.domain = self._domain()

    @property
    def profiles(self) -> int:
        """P."""
        return len(self.columns.offset) - 1

    def crops(self, length: int, mode: Literal["served", "recent"]) -> Crops:
        """Windows over the training part.

        Args:
            length: interactions of a window at most.
            mode: `served` gives every interaction the very context that serving would give it;
                `recent` takes the latest window of each profile alone, as benchmarks do.
        """
        cut = served_crops if mode == "served" else recent_crops
        return cut(self.columns.offset[:-1], self._train_end - 1, length)

    def random_cuts(self, length: int, rng: np.random.Generator) -> Crops:
        """Windows of at most `length` interactions that cover the training part once.

        Each history is cut at a random place and at every `length` from there on, so that over the
        epochs an interaction is met with contexts of all lengths.
        """
        return random_crops(self.columns.offset[:-1], self._train_end - 1, length, rng)

    def batch(self, crops: Crops | Sequence[Crop]) -> TrainingBatch:
        """These windows, padded to the longest."""
        start, end, counted = np.asarray(crops).T
        at, inside = _indices(start, end)
        learn = inside & (at >= counted[:, None]) & (at + 1 < self._train_end_of(at))
        play = np.where(learn & self._has_next_play(at), self._next_play[at], -1)
        following = np.minimum(at + 1, len(self.row) - 1)
        weight = self._weight
        return TrainingBatch(
            interactions=self._interactions(at, inside),
            next_play_BL=_int64(np.where(play >= 0, self.row[play] - FIRST_ROW, -1)),
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

    def cold_contexts(self, length: int, mode: Literal["served", "recent"]) -> Context:
        """Plays of the test period of titles that no play of the training part was of.

        By global time alone. One of each profile is drawn, always the same.
        """
        plays = np.flatnonzero(self._play & (self._period == 2) & (self.row >= FIRST_ROW))
        first = self.columns.offset[self.profile_of(plays)]
        plays = plays[(self.row[plays] >= FIRST_ROW + self.domain.vocabulary) & (plays > first)]
        plays = np.random.default_rng(0).permutation(plays)
        profile = self.profile_of(plays)
        return self._contexts_before(plays[np.unique(profile, return_index=True)[1]], length, mode)

    def is_new(self, contexts: Context) -> NDArray[np.bool_]:
        """`[len(contexts)]`, where nothing of the profile was for training."""
        begins = self.columns.offset[contexts.profile]
        new: NDArray[np.bool_] = self._train_end[contexts.profile] <= begins
        return new

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
        return self.row[contexts.end].astype(np.int64) - FIRST_ROW

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
        plays = np.zeros(self.domain.vocabulary, np.int64)
        for at in self._spans():
            trained = self.row[at][self._known[at] & self._is_trained(at)]
            plays += np.bincount(trained - FIRST_ROW, minlength=len(plays))
        return plays.astype(np.float32)

    def profile_of(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """The profiles of these interactions."""
        profile: NDArray[np.int64] = np.searchsorted(self.columns.offset, at, side="right") - 1
        return profile

    def _spans(self) -> Iterator[slice]:
        """All interactions, about a million at a time; a profile's are never parted."""
        offset = self.columns.offset
        begin = 0
        while begin < offset[-1]:
            last = np.searchsorted(offset, begin + _SPAN, side="right") - 1
            end = int(offset[last])
            if end <= begin:
                end = int(offset[np.searchsorted(offset, begin, side="right")])
            yield slice(begin, end)
            begin = end

    def _profiles_of(self, at: slice) -> slice:
        """The profiles of a span."""
        first, last = self.profile_of(np.array([at.start, at.stop - 1])).tolist()
        return slice(first, last + 1)

    def _of_spans(self, value: Callable[[slice], NDArray[Any]], dtype: DTypeLike) -> NDArray[Any]:
        """`[N]`, a value of each interaction that is told from a span of them."""
        found = np.empty(len(self.columns.title_hash), dtype)
        for at in self._spans():
            found[at] = value(at)
        return found

    def _per_profile(self, which: Callable[[slice], NDArray[np.bool_]]) -> NDArray[np.int64]:
        """`[P]`, how many of a profile's interactions are such."""
        found = np.zeros(self.profiles, np.int64)
        for at in self._spans():
            such = np.flatnonzero(which(at)) + at.start
            some = self._profiles_of(at)
            count = np.bincount(
                self.profile_of(such) - some.start, minlength=some.stop - some.start
            )
            found[some] = count
        return found

    def _is_trained(self, at: slice) -> NDArray[np.bool_]:
        places = np.arange(at.start, at.stop)
        trained: NDArray[np.bool_] = places < self._train_end_of(places)
        return trained

    def _played_early(self, title_hash: NDArray[np.int64], min_plays: int) -> NDArray[np.bool_]:
        """`[T]`, which titles were played so often in the training part."""
        order = np.argsort(title_hash)
        ascending = title_hash[order]
        plays = np.zeros(len(order), np.int64)
        for at in self._spans():
            early = self._play[at] & (self._period[at] == 0)
            title = self.columns.title_hash[at][early]
            place = np.minimum(np.searchsorted(ascending, title), len(order) - 1)
            plays += np.bincount(place[ascending[place] == title], minlength=len(order))
        found = np.zeros(len(order), np.bool_)
        found[order] = plays >= min_plays
        return found

    def _rows(self) -> NDArray[np.int32]:
        hashes = self.table.hash_T.numpy()[FIRST_ROW:]
        order = np.argsort(hashes)
        ascending = hashes[order]

        def rows(at: slice) -> NDArray[np.int64]:
            title = self.columns.title_hash[at]
            found = np.minimum(np.searchsorted(ascending, title), len(hashes) - 1)
            row = np.where(ascending[found] == title, order[found] + FIRST_ROW, UNKNOWN_ROW)
            return np.where(title == NO_TITLE, NO_ROW, row)

        return self._of_spans(rows, np.int32)

    def _hold_out_last(self) -> None:
        count = self._per_profile(lambda at: self._known[at])
        self._has_test = count >= 3
        last, before = [], []
        for at in self._spans():
            plays = np.flatnonzero(self._known[at]) + at.start
            some = self._profiles_of(at)
            ends = np.cumsum(count[some])[self._has_test[some]]
            last.append(plays[ends - 1])
            before.append(plays[ends - 2])
        self._test, self._validation = np.concatenate(last), np.concatenate(before)
        self._validation_end = self._test
        self._train_end = self.columns.offset[1:].copy()
        self._train_end[self._has_test] = self._validation

    def _hold_out_by_time(self) -> None:
        rng = np.random.default_rng(0)
        has_context = np.ones(len(self.row), np.bool_)
        has_context[self.columns.offset[:-1]] = False

        def drawn(period: int) -> NDArray[np.int64]:
            plays = np.flatnonzero(self._known & has_context & (self._period == period))
            plays = rng.permutation(plays)
            return plays[np.unique(self.profile_of(plays), return_index=True)[1]]

        self._validation, self._test = drawn(1), drawn(2)
        until_testing = self._per_profile(lambda at: self._period[at] < 2)
        self._validation_end = (self.columns.offset[:-1] + until_testing)[
            self.profile_of(self._validation)
        ]
        self._has_test = np.isin(np.arange(self.profiles), self.profile_of(self._test))
        trained = self._per_profile(lambda at: self._period[at] == 0)
        self._train_end = self.columns.offset[:-1] + trained

    def _hold_out_nothing(self) -> None:
        self._validation = self._test = self._validation_end = np.empty(0, np.int64)
        self._has_test = np.zeros(self.profiles, np.bool_)
        self._train_end = self.columns.offset[1:].copy()

    def _targets(self) -> None:
        count = len(self.row)
        narrow = count < np.iinfo(np.int32).max
        self._next_play: NDArray[Any] = np.empty(count, np.int32 if narrow else np.int64)
        coming = count
        for at in reversed(list(self._spans())):
            places = np.where(self._known[at], np.arange(at.start, at.stop), count)
            at_or_after = np.minimum.accumulate(np.append(places, coming)[::-1])[::-1]
            self._next_play[at] = at_or_after[1:]
            coming = at_or_after[0]
        shares_TC = _by_head(self.table.shares_TC.numpy(), self.labels)
        self._labels_of_titles = {
            name: np.where(shares.any(1), shares.argmax(1), -1)
            for name, shares in shares_TC.items()
        }
        self._shares = shares_TC
        watched = np.concatenate([self._watched(at)[0] for at in self._spans()])
        mean = watched.mean() if len(watched) else 1.0

        def weight(at: slice) -> NDArray[np.float32]:
            watched, measured = self._watched(at)
            weight = np.ones(len(measured), np.float32)
            weight[measured] = watched / mean
            return weight

        self._weight = self._of_spans(weight, np.float32)

    def _watched(self, at: slice) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """How much was watched, on a scale of logarithms, where it is known; and where it is."""
        watched = np.log1p(np.maximum(self.columns.watched_ms[at], 0) / 60_000)
        return watched[watched > 0], watched > 0

    def _labels(self, head: Head, at: NDArray[np.int64]) -> NDArray[Any]:
        """The label of each of these interactions, -1 where unknown; of a head with one label."""
        if isinstance(head.label, OfInteraction):
            c = self.columns
            return head.label.code(_Happened(c.action[at], c.start_ms[at], c.device[at]))
        if isinstance(head.label, OfTitle):
            return self._labels_of_titles[head.name][self.row[at]]
        day = self.columns.start_ms[at] // 86_400_000
        release = self.table.release_day_T.numpy()[self.row[at]]
        age = np.searchsorted(RELEASE_AGE_EDGES_DAYS, day - release, side="right")
        return np.where(release == UNKNOWN_DAY, -1, age)

    def _labels_met(self, head: Head) -> int:
        """How many of a head's labels the training part has."""
        met: NDArray[np.int64] = np.empty(0, np.int64)
        for at in self._spans():
            trained = np.flatnonzero(self._is_trained(at)) + at.start
            met = np.union1d(
                met, self.row[trained] if head.several else self._labels(head, trained)
            )
        if head.several:
            return int((self._shares[head.name][met] > 0).any(0).sum())
        return int((met >= 0).sum())

    def _repeats(self) -> bool:
        """Whether anybody played a title twice."""
        for at in self._spans():
            played = np.flatnonzero(self._play[at]) + at.start
            pairs = self.profile_of(played) * np.int64(len(self.table.hash_T)) + self.row[played]
            if len(np.unique(pairs)) < len(pairs):
                return True
        return False

    def _domain(self) -> Domain:
        return domain(
            tuple(self._labels_met(head) > 1 for head in HEADS),
            repeats=self._repeats(),
            vocabulary=len(self.candidates),
            labels=self.labels,
        )

    def _contexts_before(
        self, end: NDArray[np.int64], length: int, mode: Literal["served", "recent"]
    ) -> Context:
        profile = self.profile_of(end)
        first = self.columns.offset[profile]
        context = end - first
        start = window_start(context, length) if mode == "served" else context - length
        return Context(profile, first + np.maximum(start, 0), end)

    def _train_end_of(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        ends: NDArray[np.int64] = self._train_end[self.profile_of(at)]
        return ends

    def _has_next_play(self, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        has: NDArray[np.bool_] = np.less(self._next_play[at], self._train_end_of(at))
        return has

    def _interactions(self, at: NDArray[np.int64], inside: NDArray[np.bool_]) -> Interactions:
        c = self.columns
        return Interactions(
            title_BL=_int64(np.where(inside, self.row[at], NO_ROW)),
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
        def found(head: Head) -> NDArray[Any]:
            if head.several:
                shares: NDArray[np.float32] = self._shares[head.name][
                    np.where(learn, self.row[at], NO_ROW)
                ]
                return shares
            return np.where(learn, self._labels(head, at), -1).astype(np.int64)

        return tuple(torch.from_numpy(found(head)) for head in HEADS)


class _Happened(NamedTuple):
    """Some interactions, as heads tell their labels from them."""

    action: NDArray[np.int8]
    start_ms: NDArray[np.int64]
    device: NDArray[np.uint32]


def _int64(values: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64))


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
