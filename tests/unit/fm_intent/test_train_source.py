from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
import torch

from fm_intent.baselines import SASRecSettings
from fm_intent.evaluate import evaluate_version
from fm_intent.experiments import EXPERIMENTS, Experiment, Model, Training
from fm_intent.export import read_manifest
from fm_intent.served.network import Architecture
from fm_intent.train import train
from stream.exceptions import DataUnusableError, NoVersionError

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Architecture(width=16, hidden=16, item_layers=1)
QUICK = Experiment(
    SMALL,
    Training(epochs=2, batch=512, learning_rate=1e-2, warmup_steps=5),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERIMENTS, "quick", QUICK)


def test_training_ends_in_a_version_whose_manifest_says_how_good_it_is(
    source: Path, tmp_path: Path
) -> None:
    manifest = train(source, tmp_path / "models", experiment="quick")
    assert manifest == read_manifest(tmp_path / "models", 1)
    assert manifest.source == "made-up"
    assert {"genre", "release_age"} <= set(manifest.trained_intents)
    assert not {"action", "kind"} & set(manifest.trained_intents)
    assert {"hr10", "ndcg10", "popularity_hr10", "popularity_ndcg10"} <= set(manifest.metrics)
    (run,) = (tmp_path / "runs").glob("made-up-quick-0-*")
    assert (run / "curve.png").exists()


def test_an_exported_version_is_as_good_as_its_manifest_says(source: Path, tmp_path: Path) -> None:
    manifest = train(source, tmp_path / "models", experiment="quick")
    found, report = evaluate_version(source, tmp_path / "models")
    assert found == manifest
    assert report["ndcg10"] == pytest.approx(manifest.metrics["ndcg10"])


def test_training_without_time_still_ends_in_a_version(source: Path, tmp_path: Path) -> None:
    manifest = train(source, tmp_path / "models", experiment="quick", max_minutes=0.0)
    assert (manifest.version, manifest.epochs) == (1, 1)


def test_a_run_that_was_out_of_time_goes_on_when_it_is_given_more(
    source: Path, tmp_path: Path
) -> None:
    def epochs(max_minutes: float | None) -> int:
        models = tmp_path / "models"
        return train(source, models, experiment="quick", max_minutes=max_minutes).epochs

    assert epochs(0.0) == epochs(0.0) == 1
    assert epochs(None) == 2


@pytest.mark.parametrize(
    ("model", "reason"),
    [(SASRecSettings(), "baseline"), (replace(SMALL, target_time=True), "can't know")],
)
def test_what_can_not_be_served_is_not_trained_to_be(
    model: Model, reason: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "quick", replace(QUICK, model=model))
    with pytest.raises(DataUnusableError, match=reason):
        train(source, tmp_path / "models", experiment="quick")
    assert not (tmp_path / "runs").exists()


def test_a_version_is_not_tested_on_other_data(source: Path, tmp_path: Path) -> None:
    train(source, tmp_path / "models", experiment="quick")
    events = pq.read_table(source / "events.parquet")
    pq.write_table(events.slice(1), source / "events.parquet")
    with pytest.raises(DataUnusableError, match="trained on other data"):
        evaluate_version(source, tmp_path / "models")


def test_a_version_of_another_network_is_not_tested_by_this_one(
    source: Path, tmp_path: Path
) -> None:
    train(source, tmp_path / "models", experiment="quick")
    weights = tmp_path / "models" / "fm_intent" / "1" / "model.pt"
    content = torch.load(weights, weights_only=True)
    del content["state"]["title_share_M"]
    torch.save(content, weights)
    with pytest.raises(NoVersionError, match="another network"):
        evaluate_version(source, tmp_path / "models")


def test_testing_without_a_version_says_how_to_make_one(source: Path, tmp_path: Path) -> None:
    with pytest.raises(NoVersionError, match="intentstream train"):
        evaluate_version(source, tmp_path / "models")
