"""A trained version judged through the running Triton, beside the same judged from its file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from fm_intent.evaluate import evaluate_version
from fm_intent.experiments import EXPERIMENTS, Experiment, Training
from fm_intent.served.network import Architecture, FMIntent
from fm_intent.train import train
from intentstream.served_quality import evaluate_served
from stream.exceptions import InferenceUnavailableError, ServedOtherwiseError
from tests.unit.fm_intent.conftest import write_rated_source

if TYPE_CHECKING:
    from pathlib import Path

    from fm_intent.export import Manifest
    from infra.local.stack import Stack
    from stream.settings import Settings


@pytest.fixture(scope="module", params=[False, True], ids=["played once", "played again"])
def source(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "data" / "made-up"
    return write_rated_source(folder, repeats=request.param)


@pytest.fixture(scope="module")
def version(source: Path, model_repository: Path) -> Manifest:
    EXPERIMENTS["quick"] = Experiment(
        Architecture(width=16, hidden=16, item_layers=1),
        Training(epochs=2, batch=512, learning_rate=1e-2, warmup_steps=5),
    )
    try:
        return train(source, model_repository, experiment="quick")
    finally:
        del EXPERIMENTS["quick"]


@pytest.fixture
def settings(triton: str, stack: Stack, version: Manifest) -> Settings:
    stack.load_model(str(version.version))
    return stack.settings.model_copy(update={"triton_url": triton})


def test_the_served_version_has_a_row_of_its_own_as_good_as_its_file(
    settings: Settings, source: Path, version: Manifest, model_repository: Path, tmp_path: Path
) -> None:
    results = tmp_path / "models.json"
    row = evaluate_served(settings, source, model_repository, results, version=version.version)
    _, offline = evaluate_version(source, model_repository, version.version)
    for figure in ("profiles", "hr10", "ndcg10", "mrr", "recall100"):
        assert row[figure] == pytest.approx(offline[figure])
    for name, head in offline["intents"].items():
        served = row["intents"][name]
        assert served.pop("ci95").keys() == head.pop("ci95").keys()
        against = served.pop("vs_best_baseline")
        assert against is None if name == "action" else against["model"] == "popularity"
        assert served == pytest.approx(head)
    assert row["version"] == version.version
    assert row["vs_best_baseline"]["model"] == "popularity"
    assert {one["model"] for one in json.loads(results.read_text())} == {"served", "popularity"}


def test_a_server_with_other_weights_is_found_out(
    settings: Settings,
    source: Path,
    version: Manifest,
    model_repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fm_intent import evaluate

    def other_weights(path: Path) -> FMIntent:
        model = evaluate_module_load(path)
        with torch.no_grad():
            model.title.weight += torch.randn_like(model.title.weight)
        return model

    evaluate_module_load = evaluate.load_network
    monkeypatch.setattr(evaluate, "load_network", other_weights)
    with pytest.raises(ServedOtherwiseError, match="export it again"):
        evaluate_served(
            settings, source, model_repository, tmp_path / "models.json", version=version.version
        )


def test_a_server_that_is_away_is_named(
    settings: Settings, source: Path, version: Manifest, model_repository: Path, tmp_path: Path
) -> None:
    away = settings.model_copy(update={"triton_url": "127.0.0.1:9"})
    with pytest.raises(InferenceUnavailableError):
        evaluate_served(
            away, source, model_repository, tmp_path / "models.json", version=version.version
        )
