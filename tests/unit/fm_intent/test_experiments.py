from __future__ import annotations

import pytest

from fm_intent.experiments import EXPERIMENTS
from fm_intent.served.network import Architecture, FMIntent
from tests.unit.fm_intent import tiny

SOURCES = ("ml-1m", "ml-100k", "movietweetings", "simulator", "simulator-null")
MODELS = ("gru", "sasrec", "transact", "sasrec-metadata", "transact-metadata")
VARIANTS = ("v0", "v1", "v2", "fm-intent")


def variants(source: str = "simulator") -> dict[str, Architecture]:
    found = {}
    for name in VARIANTS:
        model = EXPERIMENTS[f"{source}-{name}"].model
        assert isinstance(model, Architecture)
        found[name] = model
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_all_models_of_a_table_are_trained_alike(source: str) -> None:
    setups = {EXPERIMENTS[f"{source}-{name}"].training for name in (*MODELS, *VARIANTS)}
    assert len(setups) == 1


def test_the_variants_are_those_of_the_paper() -> None:
    of = variants()
    assert [of[name].intents for name in VARIANTS] == [
        "none",
        "multitask",
        "hierarchical",
        "hierarchical",
    ]
    assert [of[name].short_layers > 0 for name in VARIANTS] == [False, False, False, True]


def test_no_variant_is_deeper_than_another() -> None:
    depth = set()
    for one in variants().values():
        hierarchical = one.intent_layers if one.intents == "hierarchical" else 0
        depth.add(one.short_layers + hierarchical + one.item_layers)
    assert len(depth) == 1


@pytest.mark.parametrize("name", ["sasrec-metadata", "transact-metadata"])
def test_a_baseline_with_metadata_is_as_large_as_fm_intent(name: str) -> None:
    data = tiny.sequences()
    sizes = [
        sum(one.numel() for one in EXPERIMENTS[f"simulator-{model}"].build(data).parameters())
        for model in (name, "fm-intent")
    ]
    assert 0.8 < sizes[0] / sizes[1] < 1.2


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fm-intent", False),
        ("fm-intent-target-time", True),
        ("sasrec-metadata", False),
        ("sasrec-metadata-target-time", True),
        ("gru", False),
    ],
)
def test_an_experiment_says_whether_it_is_told_the_time_of_the_target(
    name: str, told: bool
) -> None:
    assert EXPERIMENTS[f"ml-1m-{name}"].target_time is told


@pytest.mark.parametrize("name", [*MODELS, *VARIANTS])
def test_every_model_can_be_built(name: str) -> None:
    model = EXPERIMENTS[f"ml-1m-{name}"].build(tiny.sequences(browsing=False, kinds=False))
    assert isinstance(model, FMIntent) is (name in VARIANTS)
