"""The compiled pass is held to the network, over networks and event streams drawn at random."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fm_intent.served import compiled
from fm_intent.served.cache import Cache, profile_bytes
from fm_intent.served.compiled import Compiled, CompileError, build, built, library_name, unfit
from fm_intent.served.network import (
    FIRST_ROW,
    UNKNOWN_DAY,
    Answer,
    Architecture,
    Domain,
    FMIntent,
    Interactions,
    TitleTable,
)
from lab.bench import streams
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.served.test_cache import first
from tests.unit.fm_intent.served.test_network import one_window

if TYPE_CHECKING:
    from collections.abc import Iterator

TOLERANCE = 1e-4
EIGHTS = st.integers(1, 9).map(lambda eighths: 8 * eighths)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    width = draw(EIGHTS, label="width")
    return Architecture(
        width=width,
        heads=draw(st.sampled_from([one for one in (1, 2, 3, 4, 8) if width % one == 0])),
        hidden=draw(EIGHTS, label="hidden"),
        short_layers=draw(st.integers(0, 2), label="short"),
        intent_layers=draw(st.integers(1, 2), label="intent"),
        item_layers=draw(st.integers(1, 3), label="item"),
        intents=draw(st.sampled_from(["none", "multitask", "hierarchical"])),
        short_term_s=draw(st.sampled_from([60, 86_400, 7 * 86_400])),
        recall=draw(st.booleans(), label="recall"),
    )


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    told = tuple(
        draw(st.lists(st.sampled_from(["entry", "age", "nothing"]), min_size=1, max_size=5))
    )
    edges = draw(st.lists(st.integers(1, 20_000), min_size=1, max_size=8, unique=True))
    classes = tuple(
        len(edges) + 1 if by == "age" else draw(st.integers(1, 40), label=by) for by in told
    )
    trained = [draw(st.booleans()) for _ in told]
    trained[draw(st.integers(0, len(told) - 1))] = True
    return Domain(
        actions=draw(st.integers(7, 256)),
        genres=draw(st.integers(1, 30)),
        kinds=draw(st.integers(1, 5)),
        devices=draw(st.integers(6, 256)),
        release_age_edges_days=tuple(sorted(edges)),
        intents=tuple(f"intent-{number}" for number in range(len(told))),
        classes=classes,
        told=told,
        trained=tuple(trained),
        repeats=draw(st.booleans(), label="repeats"),
        vocabulary=draw(st.integers(1, 3000), label="titles"),
    )


def network(architecture: Architecture, domain: Domain, seed: int, unseen: int = 3) -> FMIntent:
    """One with random weights and titles, some of which came after the training."""
    drawn = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def integers(low: int, high: int, count: int) -> torch.Tensor:
        return torch.randint(low, high, (count,), generator=drawn)

    rows, known = FIRST_ROW + domain.vocabulary + unseen, domain.vocabulary
    day = integers(0, 20_000, rows)
    day[integers(0, rows, rows // 5)] = UNKNOWN_DAY
    day[FIRST_ROW : FIRST_ROW + known] = day[FIRST_ROW : FIRST_ROW + known].sort().values
    entries = sum(
        classes for classes, by in zip(domain.classes, domain.told, strict=True) if by == "entry"
    )
    hashes = integers(1, 1 << 62, rows)
    hashes[:FIRST_ROW] = 0
    table = TitleTable(
        hash_T=hashes,
        genres_TC=torch.randint(2, (rows, domain.genres), generator=drawn).float(),
        kind_T=integers(0, domain.kinds + 1, rows),
        release_day_T=day,
        shares_TC=torch.rand(rows, entries, generator=drawn),
    )
    model = FMIntent(architecture, domain, table).eval()
    for parameter in model.parameters():
        if parameter.abs().sum() == 0 or (parameter == 1).all():
            torch.nn.init.normal_(parameter, std=0.5)
    model.title_share_M.uniform_()
    return model


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    architecture=architectures(),
    domain=domains(),
    window=st.integers(1, 48),
    seed=st.integers(0, 1000),
)
def test_any_network_is_answered_as_it_says_whatever_was_kept(
    architecture: Architecture, domain: Domain, window: int, seed: int
) -> None:
    model = network(architecture, domain, seed)
    compared = streams.compare(model, Compiled.name, streams=32, events=4, window=window, seed=seed)
    assert compared.max_abs_diff < TOLERANCE


def test_an_answer_is_the_same_to_the_bit_however_it_came_about() -> None:
    model = tiny.network(tiny.sequences())
    way, x = Compiled(model, streams.TOP, 64), one_window(64)
    way.open(2)
    for length in (1, 2, 5, 6, 40, 41, 64):
        kept = way.extended([1], first(x, length)).answer
        way.keep([1], first(x, length))
        apart = way.whole(first(x, length))
        beside = way.whole(together(first(x, length), one_window(length, seed=9)))
        for one, other, third in zip(flat(kept), flat(apart), flat(beside), strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one, third[:1])


def together(*windows: Interactions) -> Interactions:
    return Interactions(*(torch.cat(column) for column in zip(*windows, strict=True)))


def flat(answer: Answer) -> list[torch.Tensor]:
    return [*answer.intent_probs, *answer[1:]]


@pytest.mark.parametrize("column", ["title_BL", "action_BL", "device_BL"])
def test_an_input_out_of_range_is_an_error_before_anything_is_read_or_given_up(column: str) -> None:
    model = tiny.network(tiny.sequences())
    room = 2 * profile_bytes(model, 16)
    kept, x = Cache(model, streams.TOP, 16, room), one_window(10)
    kept.answer(torch.tensor([1]), x)
    wrong = getattr(x, column).clone()
    wrong[0, 9] = 10_000
    with pytest.raises(ValueError, match="out of range"):
        kept.answer(torch.tensor([1]), x._replace(**{column: wrong}))
    before = kept.counts
    kept.answer(torch.tensor([1]), x)
    assert kept.counts.positions == before.positions + 1


def test_a_profile_takes_no_more_than_32_kib_of_the_demo_s_network() -> None:
    model = tiny.network(tiny.sequences(), Architecture())
    assert Compiled.slot_bytes(model, 64) <= 32 << 10


def test_a_width_that_no_vector_of_the_processor_fills_is_left_to_the_recorded_pass() -> None:
    model = tiny.network(tiny.sequences(), Architecture(width=12, hidden=24))
    kept = Cache(model, streams.TOP, 8, profile_bytes(model, 8))
    assert kept.way.name == "recorded"
    assert "multiple of 8" in kept.why_recorded
    with pytest.raises(CompileError, match="multiple of 8"):
        Compiled(model, streams.TOP, 8)


def test_a_processor_that_lacks_what_it_needs_is_left_to_the_recorded_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "cpuinfo"
    old.write_text("processor : 0\nflags : fpu sse2 avx avx2 fma\n")
    monkeypatch.setattr(compiled, "_CPUINFO", old)
    assert "lacks f16c" in unfit(tiny.network(tiny.sequences()))


def test_without_a_compiler_and_a_library_the_recorded_pass_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    compiled._loaded.cache_clear()
    assert "no g++" in unfit(tiny.network(tiny.sequences()))


def test_it_is_compiled_once_and_found_by_its_source(tmp_path: Path) -> None:
    (tmp_path / library_name()).write_bytes(built().read_bytes())
    before = (tmp_path / library_name()).stat()
    assert build(tmp_path).stat() == before


def test_a_source_that_does_not_compile_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "model_pass.cpp"
    broken.write_text("int fm_answer() { return nothing; }")
    monkeypatch.setattr(compiled, "_SOURCE", broken)
    with pytest.raises(CompileError, match="nothing"):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == [broken]
