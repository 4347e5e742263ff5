from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from fm_intent.served.cache import Cache, Counts, profile_bytes
from fm_intent.served.network import Architecture, FMIntent, Interactions
from fm_intent.served.ways import Extended, Way
from lab.bench import streams
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.served.test_network import one_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Made = Callable[..., Cache]

DATA = tiny.sequences()
WINDOW = 16
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def model() -> FMIntent:
    return tiny.network(DATA, Architecture(width=16, hidden=24, item_layers=2))


@pytest.fixture(params=["recorded", "compiled"])
def cache(request: pytest.FixtureRequest) -> Made:
    """Makes a cache, by each pass in turn."""

    def made(model: FMIntent, profiles: int = 4) -> Cache:
        room = profiles * profile_bytes(model, WINDOW, request.param)
        one = Cache(model, streams.TOP, WINDOW, room, request.param)
        assert one.way.name == request.param, one.why_recorded
        return one

    return made


def first(x: Interactions, count: int) -> Interactions:
    columns = {name: column[:, :count] for name, column in x._asdict().items() if name[-1] == "L"}
    return x._replace(**columns, length_B=torch.full_like(x.length_B, count))


def together(*windows: Interactions) -> Interactions:
    """Windows as the rows of one batch."""
    longest = max(x.title_BL.shape[1] for x in windows)
    columns = []
    for column in zip(*windows, strict=True):
        padded = [
            torch.nn.functional.pad(one, (0, longest - one.shape[1])) if one.dim() == 2 else one
            for one in column
        ]
        columns.append(torch.cat(padded))
    return Interactions(*columns)


def ask(kept: Cache, model: FMIntent, profiles: list[int], x: Interactions) -> Counts:
    """Asks, checks the answer against the network's, and says what the cache did for it."""
    before = kept.counts
    answer = kept.answer(torch.tensor(profiles), x)
    wanted = model.answer(x, model.titles(), streams.TOP)
    assert streams.differences(answer, wanted) < TOLERANCE
    now = kept.counts
    return Counts(
        now.hits - before.hits,
        now.misses - before.misses,
        now.evictions - before.evictions,
        now.positions - before.positions,
    )


@pytest.mark.parametrize("by", ["recorded", "compiled"])
def test_random_streams_are_answered_alike_with_and_without_a_cache(
    model: FMIntent, by: str
) -> None:
    compared = streams.compare(model, by, streams=128, events=4, window=WINDOW, seed=1)
    assert compared.max_abs_diff < TOLERANCE
    assert compared.windows >= 512
    counts = compared.counts
    assert min(counts.hits, counts.misses, counts.evictions) > 0
    assert counts.hits + counts.misses == compared.windows


@pytest.mark.parametrize("intents", ["none", "multitask", "hierarchical"])
@pytest.mark.parametrize("short_layers", [0, 1])
def test_every_variant_of_the_network_can_be_cached(
    cache: Made, intents: str, short_layers: int
) -> None:
    architecture = Architecture(width=16, hidden=24, short_layers=short_layers, intents=intents)  # type: ignore[arg-type]
    variant = tiny.network(DATA, architecture)
    kept, x = cache(variant), one_window(WINDOW)
    ask(kept, variant, [1], first(x, 9))
    assert ask(kept, variant, [1], first(x, 10)).positions == 1


def test_a_network_that_lacks_labels_or_never_proposes_seen_titles_can_be_cached(
    cache: Made,
) -> None:
    data = tiny.sequences(browsing=False, kinds=False)
    data.domain = replace(data.domain, repeats=False)
    variant = tiny.network(data)
    kept = cache(variant)
    for count in (9, 10):
        windows = [first(one_window(WINDOW, seed=seed), count) for seed in range(3)]
        cost = ask(kept, variant, [1, 2, 3], together(*windows))
    assert cost == Counts(hits=3, positions=3)


def test_a_new_event_costs_one_position(cache: Made, model: FMIntent) -> None:
    kept, x = cache(model), one_window(WINDOW)
    assert ask(kept, model, [1], first(x, 9)) == Counts(misses=1, positions=9)
    assert ask(kept, model, [1], first(x, 10)) == Counts(hits=1, positions=1)


def test_the_same_window_again_costs_one_position(cache: Made, model: FMIntent) -> None:
    kept, x = cache(model), one_window(9)
    ask(kept, model, [1], x)
    assert ask(kept, model, [1], x) == Counts(hits=1, positions=1)


def test_a_sitting_that_goes_on_costs_one_position(cache: Made, model: FMIntent) -> None:
    kept, x = cache(model), one_window(9)
    for share in (0.1, 0.2, 0.9):
        x.watched_share_BL[0, -1] = share
        cost = ask(kept, model, [1], x)
    assert cost == Counts(hits=1, positions=1)


@pytest.mark.parametrize("column", Interactions._fields[:-1])
def test_a_change_of_any_input_is_seen(cache: Made, model: FMIntent, column: str) -> None:
    kept, x = cache(model), one_window(9)
    x = x._replace(start_ms_BL=x.start_ms_BL[:, :1] + torch.arange(9)[None] * 1000)
    ask(kept, model, [1], x)
    changed = getattr(x, column).clone()
    changed[0, 4] = {"watched_share_BL": 0.123, "start_ms_BL": changed[0, 4] + 7}.get(
        column, (changed[0, 4] + 1) % 6
    )
    assert ask(kept, model, [1], x._replace(**{column: changed})).positions == 5


def test_a_late_event_costs_the_positions_from_there(cache: Made, model: FMIntent) -> None:
    kept, x = cache(model), one_window(10)
    late = 6
    without = {
        name: torch.cat([column[:, :late], column[:, late + 1 :]], 1)
        for name, column in x._asdict().items()
        if name[-1] == "L"
    }
    ask(kept, model, [1], x._replace(**without, length_B=torch.tensor([9])))
    assert ask(kept, model, [1], x) == Counts(hits=1, positions=4)


def test_what_follows_a_change_is_not_taken_for_what_followed_before(
    cache: Made, model: FMIntent
) -> None:
    kept, x = cache(model), one_window(10)
    changed = x._replace(action_BL=x.action_BL.clone())
    changed.action_BL[0, 3] = (x.action_BL[0, 3] + 1) % 7
    ask(kept, model, [1], x)
    ask(kept, model, [1], first(changed, 4))
    assert ask(kept, model, [1], changed).positions == 6


def test_a_window_that_dropped_its_oldest_block_is_computed_whole(
    cache: Made, model: FMIntent
) -> None:
    kept, x = cache(model), one_window(WINDOW)
    ask(kept, model, [1], x)
    rest = {name: column[:, 8:] for name, column in x._asdict().items() if name[-1] == "L"}
    dropped = x._replace(**rest, length_B=torch.tensor([8]))
    assert ask(kept, model, [1], dropped) == Counts(misses=1, positions=8)


def test_rows_with_few_and_with_many_new_positions_are_not_padded_to_each_other(
    cache: Made,
    model: FMIntent,
) -> None:
    kept, x, y = cache(model), one_window(12, seed=1), one_window(12, seed=2)
    ask(kept, model, [1], first(x, 11))
    cost = ask(kept, model, [1, 2], together(x, y))
    assert cost == Counts(hits=1, misses=1, positions=1 + 12)


def test_rows_come_back_in_their_order(cache: Made, model: FMIntent) -> None:
    kept = cache(model)
    windows = [one_window(length, seed=length) for length in (12, 5, 1, 16)]
    ask(kept, model, [0, 2], together(first(windows[0], 11), first(windows[2], 1)))
    assert ask(kept, model, [0, 1, 2, 3], together(*windows)).hits == 1


def test_a_profile_twice_in_one_batch_is_answered_twice(cache: Made, model: FMIntent) -> None:
    kept, x = cache(model), one_window(10)
    cost = ask(kept, model, [1, 2, 1], together(first(x, 8), first(x, 3), x))
    assert (cost.hits, cost.misses) == (1, 2)


def test_two_profiles_of_one_hash_are_told_apart_by_their_windows(
    cache: Made, model: FMIntent
) -> None:
    kept, x, y = cache(model), one_window(8, seed=1), one_window(8, seed=2)
    for window in (x, y, x):
        assert ask(kept, model, [1], window).misses == 1


def test_the_least_recently_used_profile_is_evicted(cache: Made, model: FMIntent) -> None:
    kept, x = cache(model, profiles=2), one_window(5)
    ask(kept, model, [1], x)
    ask(kept, model, [2], x)
    ask(kept, model, [1], x)
    assert ask(kept, model, [3], x).evictions == 1
    assert ask(kept, model, [1], x).evictions == 0
    assert ask(kept, model, [2], x).evictions == 1


def test_a_batch_of_more_profiles_than_there_are_slots_is_answered(
    cache: Made, model: FMIntent
) -> None:
    kept = cache(model, profiles=2)
    windows = [one_window(6, seed=seed) for seed in range(5)]
    assert ask(kept, model, list(range(5)), together(*windows)).evictions == 3


def test_a_window_longer_than_a_slot_is_answered_without_the_cache(
    cache: Made, model: FMIntent
) -> None:
    kept, x = cache(model), one_window(WINDOW + 1)
    for _ in range(2):
        assert ask(kept, model, [1], x) == Counts(misses=1, positions=WINDOW + 1)


def test_a_window_that_is_not_to_be_kept_neither_reads_the_cache_nor_takes_a_slot(
    cache: Made,
    model: FMIntent,
) -> None:
    kept, x = cache(model, profiles=2), first(one_window(WINDOW), 10)
    ask(kept, model, [1, 2], together(x, x))
    three = together(first(one_window(WINDOW, seed=1), 7), x, first(one_window(WINDOW, seed=2), 1))
    before = kept.counts
    answer = kept.answer(torch.tensor([3, 2, 4]), three, torch.tensor([False, True, False]))
    wanted = model.answer(three, model.titles(), streams.TOP)
    assert streams.differences(answer, wanted) < TOLERANCE
    assert (kept.counts.misses - before.misses, kept.counts.evictions) == (2, 0)
    assert ask(kept, model, [1, 2], together(x, x)) == Counts(hits=2, positions=2)


def test_a_long_window_does_not_take_the_cache_from_those_it_came_with(
    cache: Made, model: FMIntent
) -> None:
    kept, long, short = cache(model), one_window(WINDOW + 5, seed=1), one_window(9, seed=2)
    both = together(long, short)
    assert ask(kept, model, [1, 2], both).positions == WINDOW + 5 + 9
    assert ask(kept, model, [1, 2], both) == Counts(hits=1, misses=1, positions=WINDOW + 5 + 1)


def test_a_long_window_s_answer_that_is_not_a_number_is_an_error(
    cache: Made, model: FMIntent
) -> None:
    x = one_window(WINDOW + 1)
    x.watched_share_BL[0, WINDOW] = torch.inf
    with pytest.raises(FloatingPointError, match="isn't a number"):
        cache(model).answer(torch.tensor([1]), x)


class Fails:
    """A pass that has computed and then breaks, before its caller could look at the answer."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self.window = way.window

    def extended(self, slots: list[int], x: Interactions) -> Extended:
        self._way.extended(slots, x)
        raise ZeroDivisionError


def test_a_batch_that_fails_leaves_nothing_half_written(
    cache: Made, model: FMIntent, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, x, y = cache(model), one_window(10, seed=1), one_window(10, seed=2)
    head = [torch.cat([a[:, :4], b[:, 4:]], 1) for a, b in zip(x[:-1], y[:-1], strict=True)]
    y = Interactions(*head, x.length_B)
    ask(kept, model, [1], x)
    with monkeypatch.context() as patch:
        patch.setattr(kept, "way", Fails(kept.way))
        with pytest.raises(ZeroDivisionError):
            kept.answer(torch.tensor([1]), y)
    assert ask(kept, model, [1], x).positions == 6


def test_an_answer_that_is_not_a_number_is_an_error_and_leaves_nothing_behind(
    cache: Made,
    model: FMIntent,
) -> None:
    kept, x = cache(model, profiles=1), one_window(10)
    broken = x._replace(watched_share_BL=x.watched_share_BL.clone())
    broken.watched_share_BL[0, 5] = torch.nan
    broken.watched_share_BL[0, 9] = torch.inf
    with pytest.raises(FloatingPointError, match="isn't a number"):
        kept.answer(torch.tensor([1]), broken)
    assert ask(kept, model, [1], first(x, 3)).misses == 1
    assert ask(kept, model, [1], x).hits == 1


def test_a_budget_too_small_for_one_profile_is_refused(model: FMIntent) -> None:
    with pytest.raises(ValueError, match="holds no profile"):
        Cache(model, streams.TOP, WINDOW, profile_bytes(model, WINDOW) - 1)


def memory(kept: Cache) -> list[torch.Tensor]:
    """All that a pass keeps of profiles."""
    names = {"recorded": ("_kept", "_inputs", "_valid"), "compiled": ("_slots", "_valid")}
    return [torch.as_tensor(getattr(kept.way, name)) for name in names[kept.way.name]]


def test_a_forgotten_profile_leaves_nothing_behind(cache: Made, model: FMIntent) -> None:
    kept = cache(model, profiles=2)
    ask(kept, model, [7, 8], together(*[first(one_window(WINDOW), 10)] * 2))
    assert all(one.any() for one in memory(kept))
    kept.forget([7, 8, 8, 999])
    assert not any(one.any() for one in memory(kept))


def test_an_evicted_profile_leaves_nothing_behind(cache: Made, model: FMIntent) -> None:
    kept = cache(model, profiles=1)
    ask(kept, model, [7], first(one_window(WINDOW, seed=1), 10))
    ask(kept, model, [8], first(one_window(WINDOW, seed=2), 3))
    alone = cache(model, profiles=1)
    ask(alone, model, [8], first(one_window(WINDOW, seed=2), 3))
    for one, other in zip(memory(kept), memory(alone), strict=True):
        assert torch.equal(one, other)


def test_forgetting_a_profile_leaves_the_others(cache: Made, model: FMIntent) -> None:
    kept = cache(model, profiles=2)
    x = first(one_window(WINDOW), 10)
    ask(kept, model, [7], x)
    ask(kept, model, [8], x)
    kept.forget([8])
    assert ask(kept, model, [7], x) == Counts(hits=1, positions=1)
    assert ask(kept, model, [8], x) == Counts(misses=1, positions=10)
