from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from fm_intent.data import dataset
from fm_intent.data.crops import Crop, Crops, batches, window_start
from fm_intent.data.dataset import PLAYS, Part, Sequences, Split, load
from fm_intent.served.network import FIRST_ROW, NO_ROW
from stream.domain.labels import ACTIONS, GENRES, hash64
from stream.exceptions import DataUnusableError
from tests.unit.fm_intent import tiny

DATA = tiny.sequences()


def each(crops: Crops) -> list[Crop]:
    return [Crop(*one) for one in crops.tolist()]


def plays_of(data: Sequences, profile: int) -> np.ndarray:
    at = np.arange(data.columns.offset[profile], data.columns.offset[profile + 1])
    return at[np.isin(data.columns.action[at], PLAYS)]


def test_the_last_play_is_for_testing_and_the_one_before_for_validation() -> None:
    test = DATA.contexts("test", 64, "served")
    validation = DATA.contexts("validation", 64, "served")
    for profile, tested, validated in zip(test.profile, test.end, validation.end, strict=True):
        assert plays_of(DATA, profile)[-2:].tolist() == [validated, tested]


def test_training_never_reads_or_predicts_what_is_held_out() -> None:
    validation = DATA.contexts("validation", 64, "served")
    held_out = dict(zip(validation.profile.tolist(), validation.end.tolist(), strict=True))
    for crop in each(DATA.crops(64, "served")):
        profile = int(np.searchsorted(DATA.columns.offset, crop.start, side="right")) - 1
        end = held_out.get(profile, int(DATA.columns.offset[profile + 1]))
        assert crop.end < end
        batch = DATA.batch([crop])
        targets = batch.next_play_BL[0].tolist()
        plays = plays_of(DATA, profile)
        for position, target in enumerate(targets):
            coming = plays[plays > crop.start + position][0]
            if target >= 0:
                assert coming < end
                assert DATA.row[coming] == target + FIRST_ROW


def test_intent_targets_are_those_of_the_next_interaction() -> None:
    (crop, *_) = each(DATA.crops(64, "served"))
    batch = DATA.batch([crop])
    action, genre, kind, age = (one[0] for one in batch.intents)
    following = slice(crop.start + 1, crop.end + 1)
    assert action.tolist() == DATA.columns.action[following].tolist()
    rows = DATA.row[following]
    assert kind.tolist() == (DATA.table.kind_T[rows] - 1).tolist()
    table = DATA.table.genres_TC[rows]
    torch.testing.assert_close(genre, table / table.sum(1, keepdim=True).clamp(min=1))
    assert bool(((age == -1) == torch.from_numpy(rows == NO_ROW)).all()) or -1 in age


def test_evaluation_tells_of_each_position_what_training_tells_of_it() -> None:
    contexts = DATA.contexts("test", 64, "served")
    asked = DATA.asked_ms(contexts)
    starts = DATA.columns.start_ms
    for row, (profile, start, end) in enumerate(zip(*contexts, strict=True)):
        plays = plays_of(DATA, profile)
        told = [starts[plays[plays > at][0]] for at in range(start, end)]
        assert asked[row, : end - start].tolist() == told
        assert told[-1] == starts[end]
        # As a window of training, whose first half is there for context alone.
        batch = DATA.batch([Crop(int(start), int(end), int(end) - 1)])
        assert batch.play_ms_BL[0].tolist() == told


def test_served_crops_give_each_interaction_the_context_that_serving_gives_it() -> None:
    data = Sequences(tiny.columns(profiles=4, longest=300), tiny.catalogue())
    counted = []
    for crop in each(data.crops(64, "served")):
        profile = int(np.searchsorted(data.columns.offset, crop.start, side="right")) - 1
        first = data.columns.offset[profile]
        for at in range(crop.counted, crop.end):
            context = np.array(at - first + 1)
            assert crop.start == first + window_start(context, 64)
            counted.append(at)
    assert len(counted) == len(set(counted))
    train = sum(
        max(0, int(end - first) - 1)
        for first, end in zip(data.columns.offset[:-1], data._train_end, strict=True)
    )
    assert len(counted) == train


def test_a_served_window_drops_its_oldest_half_when_it_would_be_too_long() -> None:
    context = np.array([1, 64, 65, 96, 97, 128, 129])
    assert window_start(context, 64).tolist() == [0, 0, 32, 32, 64, 64, 96]


def test_recent_crops_are_the_latest_window_of_each_profile() -> None:
    crops = DATA.crops(10, "recent")
    assert len(crops) <= DATA.profiles
    assert (crops[:, 1] - crops[:, 0]).max() == 10


def test_a_profile_with_too_few_plays_is_for_training_alone() -> None:
    c = tiny.columns(profiles=2, longest=40, browsing=False)
    second = c.offset[1]
    short = c._replace(
        offset=np.array([0, second, second + 2]),
        **{name: getattr(c, name)[: second + 2] for name in c._fields[1:]},
    )
    data = Sequences(short, tiny.catalogue())
    assert data.contexts("test", 64, "served").profile.tolist() == [0]
    assert DATA.batch([Crop(int(second), int(second) + 1, int(second))])


def test_popularity_counts_training_plays_alone() -> None:
    assert DATA.popularity().sum() == sum(
        len(plays_of(DATA, profile)) - (2 if len(plays_of(DATA, profile)) > 2 else 0)
        for profile in range(DATA.profiles)
    )


def test_a_browsed_title_is_no_target_of_the_item_loss() -> None:
    opened = ACTIONS.index("open")
    c = tiny.columns(profiles=3, longest=30)
    data = Sequences(c._replace(action=np.full_like(c.action, opened)), tiny.catalogue())
    assert data.domain.vocabulary == 0
    assert len(data.contexts("test", 64, "served").end) == 0


def test_batches_hold_every_crop_once_and_respect_their_bound() -> None:
    crops = DATA.crops(64, "served")
    groups = list(batches(crops, 256, np.random.default_rng(0)))
    assert sorted(each(np.concatenate(groups))) == sorted(each(crops))
    for group in groups:
        longest = (group[:, 1] - group[:, 0]).max()
        assert len(group) == 1 or longest * len(group) <= 256


def test_batches_come_alike_from_the_same_seed() -> None:
    crops = DATA.crops(64, "served")
    one, other = (list(batches(crops, 256, np.random.default_rng(5))) for _ in range(2))
    assert [each(group) for group in one] == [each(group) for group in other]


def test_a_missing_source_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataUnusableError, match="prepare the source"):
        load(tmp_path)


def test_the_title_table_starts_with_what_was_played(source: Path) -> None:
    data = load(source)
    hashes = data.table.hash_T[FIRST_ROW:].tolist()
    assert set(hashes[:3]) == {hash64("a"), hash64("b"), hash64("c")}
    assert hashes[3] == hash64("d")
    drama = data.table.genres_TC[FIRST_ROW + hashes.index(hash64("a")), GENRES.index("drama")]
    assert drama == 1


def test_random_cuts_cover_the_training_part_once_and_differ_between_epochs() -> None:
    whole = sorted(
        at for crop in each(DATA.crops(10_000, "recent")) for at in range(crop.start, crop.end)
    )
    rng = np.random.default_rng(0)
    cuts = [each(DATA.random_cuts(8, rng)) for _ in range(2)]
    for one in cuts:
        assert sorted(at for crop in one for at in range(crop.start, crop.end)) == whole
        assert all(0 < crop.end - crop.start <= 8 and crop.counted == crop.start for crop in one)
    assert cuts[0] != cuts[1]


BY_TIME = Sequences(tiny.columns(), tiny.catalogue(), "global-time")


def border(part: Part) -> float:
    """When the period of a part begins, by plays."""
    starts = DATA.columns.start_ms[np.isin(DATA.columns.action, PLAYS)]
    return float(np.quantile(starts, 0.8 if part == "validation" else 0.9))


def test_by_global_time_training_reads_nothing_and_learns_nothing_that_came_later() -> None:
    starts = BY_TIME.columns.start_ms
    ends = BY_TIME._train_end
    learned = 0
    for crop in each(BY_TIME.crops(64, "served")):
        batch = BY_TIME.batch([crop])
        assert (starts[crop.start : crop.end] < border("validation")).all()
        profile = int(np.searchsorted(BY_TIME.columns.offset, crop.start, side="right")) - 1
        plays = plays_of(BY_TIME, profile)
        for position, target in enumerate(batch.next_play_BL[0].tolist()):
            if target >= 0:
                coming = plays[plays > crop.start + position][0]
                assert starts[coming] < border("validation")
                learned += 1
    assert learned > 100
    assert all(
        (starts[first:end] < border("validation")).all()
        for first, end in zip(BY_TIME.columns.offset, ends, strict=False)
    )


@pytest.mark.parametrize("part", ["validation", "test"])
def test_by_global_time_each_profile_has_one_target_in_a_period_and_all_before_as_context(
    part: Part,
) -> None:
    contexts = BY_TIME.contexts(part, 64, "recent")
    starts = BY_TIME.columns.start_ms[contexts.end]
    assert (starts >= border(part)).all()
    if part == "validation":
        assert (starts < border("test")).all()
    assert len(np.unique(contexts.profile)) == len(contexts.profile) > 5
    first = BY_TIME.columns.offset[contexts.profile]
    assert (contexts.start == np.maximum(first, contexts.end - 64)).all()
    assert (contexts.end > contexts.start).all()


def test_by_global_time_only_titles_of_the_training_part_are_scored() -> None:
    late = tiny.columns()
    newest = int(np.flatnonzero(np.isin(late.action, PLAYS))[-1])
    hashes, starts = late.title_hash.copy(), late.start_ms.copy()
    hashes[newest] = tiny.catalogue().title_hash[39]
    starts[newest:] += 10_000 * tiny.HOUR_MS
    data = Sequences(
        late._replace(title_hash=hashes, start_ms=starts), tiny.catalogue(), "global-time"
    )
    assert 39 not in data.candidates
    assert 39 in Sequences(late._replace(title_hash=hashes), tiny.catalogue()).candidates
    contexts = data.contexts("test", 64, "served")
    assert newest not in contexts.end
    assert (data.targets(contexts) < data.domain.vocabulary).all()
    everything = contexts._replace(end=data.columns.offset[contexts.profile + 1])
    assert data.seen(everything).any(1).all()


def test_a_title_is_just_opened_when_the_look_at_it_came_right_before() -> None:
    c = tiny.columns(profiles=1, longest=12)
    count = len(c.action)
    action = np.full(count, ACTIONS.index("discover"), np.int8)
    action[count - 2] = ACTIONS.index("open")
    hashes = tiny.catalogue().title_hash[np.arange(count) % 9]
    data = Sequences(c._replace(action=action, title_hash=hashes), tiny.catalogue())
    contexts = data.contexts("test", 64, "served")
    assert not data.just_opened(contexts).any()
    hashes[count - 2] = hashes[count - 1]
    data = Sequences(c._replace(action=action, title_hash=hashes), tiny.catalogue())
    assert data.just_opened(contexts).all()
    action[count - 2] = ACTIONS.index("rewatch")
    data = Sequences(c._replace(action=action, title_hash=hashes), tiny.catalogue())
    assert not data.just_opened(data.contexts("test", 64, "served")).any()


def test_by_global_time_the_first_interaction_of_a_profile_is_never_a_target() -> None:
    c = tiny.columns(profiles=12, longest=60, browsing=False)
    beginning = c.offset[:-1]
    alone = c._replace(
        offset=np.append(c.offset, c.offset[-1] + 1),
        profile_id=np.append(c.profile_id, "newcomer"),
        **{name: np.append(getattr(c, name), getattr(c, name)[-1]) for name in c._fields[1:-1]},
    )
    alone.start_ms[-1] = alone.start_ms.max()
    data = Sequences(alone, tiny.catalogue(), "global-time")
    assert data._period[-1] == 2
    for part in ("validation", "test"):
        ends = data.contexts(cast("Part", part), 64, "recent").end
        assert not np.isin(ends, [*beginning, len(alone.start_ms) - 1]).any()


@pytest.mark.parametrize("split", ["leave-one-out", "global-time"])
def test_validation_interactions_were_not_trained_on_and_are_not_for_testing(split: Split) -> None:
    data = Sequences(tiny.columns(), tiny.catalogue(), split)
    contexts = data.validation_interactions(64, "served")
    assert len(contexts.end) == len(data._validation)
    assert (contexts.end >= data._validation).all()
    tested = np.full(data.profiles, len(data.row))
    tested[data.profile_of(data._test)] = data._test
    assert (contexts.end < tested[contexts.profile]).all()
    assert (contexts.end < data.columns.offset[contexts.profile + 1]).all()
    if split == "global-time":
        assert set(data._period[contexts.end]) == {1}
    else:
        assert (data.columns.action[contexts.end] >= len(PLAYS)).any()


def test_titles_that_are_scored_come_in_order_of_release() -> None:
    days = tiny.catalogue().release_day[DATA.candidates]
    assert (np.diff(days) >= 0).all()


@pytest.mark.parametrize("split", ["leave-one-out", "global-time"])
def test_what_is_told_from_spans_is_the_same_however_long_they_are(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Sequences(tiny.columns(), tiny.catalogue(), split)
    monkeypatch.setattr(dataset, "_SPAN", 7)
    parted = Sequences(tiny.columns(), tiny.catalogue(), split)
    assert parted.domain == whole.domain
    assert parted.popularity().tolist() == whole.popularity().tolist()
    for part in ("validation", "test"):
        for one, other in zip(
            parted.contexts(cast("Part", part), 64, "served"),
            whole.contexts(cast("Part", part), 64, "served"),
            strict=True,
        ):
            assert one.tolist() == other.tolist()
    crops = whole.crops(64, "served")
    assert parted.crops(64, "served").tolist() == crops.tolist()
    ours, theirs = parted.batch(crops), whole.batch(crops)
    for one, other in zip(ours.interactions, theirs.interactions, strict=True):
        assert one.equal(other)
    for one, other in zip(ours.intents, theirs.intents, strict=True):
        assert one.equal(other)
    for name in ("next_play_BL", "play_ms_BL", "play_weight_BL", "weight_BL"):
        assert getattr(ours, name).equal(getattr(theirs, name))
