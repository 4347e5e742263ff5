"""The hidden truth is for judging alone: nothing that makes features or models can read it."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import stream
from fm_intent.data.dataset import load
from lab.exceptions import TruthError
from lab.simulator import SimulatorParameters, simulate
from lab.simulator.hidden_truth import TRUTH_FILE, intents_in_force
from stream.domain.labels import GENRES, KINDS

ROOT = Path(stream.__file__).parents[1]
PACKAGES = ("stream", "features", "fm_intent", "intentstream", "infra", "lab", "model_repo")

KNOW_THE_TRUTH = {
    "lab.cli": "simulates",
    "lab.bench.traffic": "sends the events of simulated members, and drops their truth",
}
"""Modules outside the simulator that import it or name its truth; no other may."""

MAKE_FEATURES_AND_MODELS = (
    *("fm_intent.train", "fm_intent.data.dataset", "fm_intent.data.histories", "fm_intent.loss"),
    "fm_intent.served.network",
    *("fm_intent.export", "fm_intent.baselines", "fm_intent.experiments", "fm_intent.served.cache"),
    *(
        "stream.domain.history",
        "stream.domain.profile_state",
        "stream.domain.actions",
        "stream.worker.pipeline",
        "stream.domain.window",
    ),
    *("features.registry.store", "stream.domain.feature_row", "features.online.writer"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("simulated")
    simulate(SimulatorParameters(members=40, days=20), directory)
    return directory


@pytest.fixture(scope="module")
def sequences(made):
    return load(made)


def _profile_ids(sequences) -> pa.Array:
    columns = sequences.columns
    return pa.array(np.repeat(columns.profile_id, np.diff(columns.offset)))


@pytest.mark.parametrize("truth", [None, b"garbled"])
def test_histories_and_features_are_the_same_whatever_the_truth_says(
    made, sequences, tmp_path, truth
) -> None:
    for name in ("catalogue.parquet", "events.parquet"):
        shutil.copy(made / name, tmp_path)
    if truth is not None:
        (tmp_path / TRUTH_FILE).write_bytes(truth)
    other = load(tmp_path)
    for ours, theirs in zip(sequences.columns, other.columns, strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    crops = sequences.crops(64, "served")
    assert crops.tolist() == other.crops(64, "served").tolist()
    ours, theirs = sequences.batch(crops), other.batch(crops)
    for name in ("title_BL", "action_BL", "start_ms_BL", "watched_share_BL", "device_BL"):
        assert getattr(ours.interactions, name).equal(getattr(theirs.interactions, name))
    for our_intent, their_intent in zip(ours.intents, theirs.intents, strict=True):
        assert our_intent.equal(their_intent)


def _modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }


def _imports(path: Path) -> set[str]:
    """Whatever a module imports, also within functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def _names_the_file(path: Path) -> bool:
    return any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) and TRUTH_FILE in node.value
        for node in ast.walk(ast.parse(path.read_text()))
    )


def _is_simulator(name: str) -> bool:
    return name == "lab.simulator" or name.startswith("lab.simulator.")


def test_no_module_but_those_that_simulate_or_judge_can_reach_the_truth() -> None:
    reach = {
        name
        for name, path in _modules().items()
        if any(map(_is_simulator, _imports(path))) or _names_the_file(path)
    }
    assert "lab.simulator.oracle" in reach
    assert {name for name in reach if not _is_simulator(name)} == set(KNOW_THE_TRUTH)


@pytest.mark.parametrize("module", MAKE_FEATURES_AND_MODELS)
def test_what_makes_features_and_models_exists(module) -> None:
    assert module in _modules()


def test_nothing_that_makes_features_or_models_imports_the_simulator_at_any_remove() -> None:
    modules = _modules()
    reached, ahead = set(), set(MAKE_FEATURES_AND_MODELS)
    while ahead:
        reached |= ahead
        ahead = set().union(*(_imports(modules[name]) for name in ahead)) & set(modules) - reached
    assert {"fm_intent.data.dataset", "stream.domain.labels"} < reached
    assert not [name for name in reached if _is_simulator(name)]


def test_the_truth_says_the_intent_in_force_at_every_interaction(made, sequences) -> None:
    found = intents_in_force(made, _profile_ids(sequences), sequences.columns.start_ms)
    assert {len(one) for one in found.values()} == {len(sequences.columns.start_ms)}
    assert found["genre"].min() >= 0
    assert found["genre"].max() < len(GENRES)
    spells = np.diff(found["spell"]) != 0
    changes = np.diff(found["genre"]) != 0
    assert spells[changes].all()
    assert spells.mean() < 0.9


def test_most_interactions_are_with_titles_of_the_intent_in_force(made, sequences) -> None:
    found = intents_in_force(made, _profile_ids(sequences), sequences.columns.start_ms)
    kind = sequences.table.kind_T.numpy()[sequences.row] - 1
    agrees = (kind == found["kind"])[kind >= 0]
    assert agrees.mean() > 0.7
    shuffled = np.random.default_rng(1).permutation(found["kind"])
    assert agrees.mean() > (kind == shuffled)[kind >= 0].mean() + 0.15
    assert set(np.unique(found["kind"])) <= set(range(len(KINDS)))


def test_a_truth_of_other_members_is_refused(made, sequences) -> None:
    ids = _profile_ids(sequences)
    with pytest.raises(TruthError, match="does not cover"):
        intents_in_force(made, ids, sequences.columns.start_ms + 10 * 86_400_000)


def test_a_source_without_hidden_truth_says_so(tmp_path) -> None:
    with pytest.raises(TruthError, match="only simulated sources"):
        intents_in_force(tmp_path, pa.array(["a"]), np.array([1]))
