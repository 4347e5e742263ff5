from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fm_intent.benchmark import benchmark, published_split
from fm_intent.evaluate import evaluate_version
from fm_intent.exceptions import DataUnusableError, NoVersionError
from fm_intent.experiments import EXPERIMENTS, Experiment, Training
from fm_intent.export import read_manifest
from fm_intent.network import Architecture
from fm_intent.train import train

if TYPE_CHECKING:
    from pathlib import Path

QUICK = Experiment(
    Architecture(width=16, hidden=16, item_layers=1),
    Training(epochs=2, batch=512, learning_rate=1e-2, warmup_steps=5),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERIMENTS, "quick", QUICK)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve profiles that each play fifteen of twenty titles, none twice."""
    rng = np.random.default_rng(4)
    folder = tmp_path / "data" / "made-up"
    folder.mkdir(parents=True)
    played = np.concatenate([rng.permutation(20)[:15] for _ in range(12)])
    count = len(played)
    ids = [f"{row:04d}" for row in range(count)]
    events = {
        "event_id": ids,
        "profile_id": [f"profile-{row // 15}" for row in range(count)],
        "event_type": ["play_complete"] * count,
        "occurred_at_ms": (np.arange(count) * 3_600_000).tolist(),
        "title_id": [f"title-{title}" for title in played],
        "playback_id": ids,
    }
    pq.write_table(pa.table(events), folder / "events.parquet")
    catalogue = {
        "title_id": [f"title-{title}" for title in range(20)],
        "name": [f"Title {title}" for title in range(20)],
        "kind": ["movie"] * 20,
        "genres": [["drama"] if title % 2 else ["comedy", "war"] for title in range(20)],
        "release_day": pa.array(range(0, -20_000, -1000), pa.int32()),
        "duration_s": pa.nulls(20, pa.float32()),
    }
    pq.write_table(pa.table(catalogue), folder / "catalogue.parquet")
    return folder


def test_training_ends_in_a_version_whose_manifest_says_how_good_it_is(
    source: Path, tmp_path: Path
) -> None:
    manifest = train(source, tmp_path / "models", experiment="quick")
    assert manifest == read_manifest(tmp_path / "models", 1)
    assert manifest.source == "made-up"
    assert manifest.trained_intents == ["genre", "release_age"]
    assert {"hr10", "ndcg10", "popularity_hr10", "popularity_ndcg10"} <= set(manifest.metrics)
    assert (tmp_path / "runs" / "made-up-quick-0" / "curve.png").exists()


def test_an_exported_version_is_as_good_as_its_manifest_says(source: Path, tmp_path: Path) -> None:
    manifest = train(source, tmp_path / "models", experiment="quick")
    found, report = evaluate_version(source, tmp_path / "models")
    assert found == manifest
    assert report["ndcg10"] == pytest.approx(manifest.metrics["ndcg10"])


def test_training_without_time_still_ends_in_a_version(source: Path, tmp_path: Path) -> None:
    manifest = train(source, tmp_path / "models", experiment="quick", max_minutes=0.0)
    assert (manifest.version, manifest.epochs) == (1, 1)


def test_a_version_is_not_tested_on_other_data(source: Path, tmp_path: Path) -> None:
    train(source, tmp_path / "models", experiment="quick")
    events = pq.read_table(source / "events.parquet")
    pq.write_table(events.slice(1), source / "events.parquet")
    with pytest.raises(DataUnusableError, match="trained on other data"):
        evaluate_version(source, tmp_path / "models")


def test_testing_without_a_version_says_how_to_make_one(source: Path, tmp_path: Path) -> None:
    with pytest.raises(NoVersionError, match="intentstream train"):
        evaluate_version(source, tmp_path / "models")


def test_a_benchmark_row_takes_the_place_of_the_one_before(source: Path, tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    for experiment in ("popularity", "quick", "quick"):
        benchmark(
            source, results, experiment=experiment, seed=0, device="cpu", run_dir=tmp_path / "run"
        )
    rows = json.loads(results.read_text())
    assert [row["model"] for row in rows] == ["popularity", "quick"]
    assert all(0 <= row["ndcg10"] <= 1 for row in rows)


def test_a_source_of_another_size_than_the_published_split_is_refused(source: Path) -> None:
    renamed = source.rename(source.with_name("ml-1m"))
    with pytest.raises(DataUnusableError, match="the published split has"):
        published_split(renamed)
