"""A version that is trained on a service's own data, from its description alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fm_intent.data.dataset import load
from fm_intent.data.description import SourceDescription, TrainingGates, read_description
from fm_intent.data.taking_in import take_in
from fm_intent.evaluate import exported
from fm_intent.export import DESCRIPTION_FILE, read_version_labels
from fm_intent.exported import ExportedVersion
from fm_intent.ranks import Ranks
from fm_intent.service_training import Trained, insist, train_service
from fm_intent.training_page import markdown, page
from fm_intent.validation import validated
from stream.domain.catalogue import CATALOGUE_FILE
from stream.exceptions import DataUnusableError, GateError, WarmStartError
from tests.made_up_service import CHANNEL, GENRES, Service


def train(home: Path, description: SourceDescription, init: int | None = None) -> Trained:
    return train_service(
        home / "ours",
        description,
        home / "repository",
        home / "runs",
        init=init,
        ranks=Ranks(),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("service")
    file = Service(profiles=60).write(home / "theirs", epochs=1)
    take_in(read_description(file), file, home / "ours")
    return file


@pytest.fixture(scope="module")
def description(source: Path) -> SourceDescription:
    return read_description(source)


@pytest.fixture(scope="module")
def trained(source: Path, description: SourceDescription) -> Trained:
    return train(source.parents[1], description)


def test_the_version_carries_the_service_s_titles_labels_and_description(
    source: Path, trained: Trained
) -> None:
    assert trained.manifest is not None
    folder = source.parents[1] / "repository" / "fm_intent" / str(trained.manifest.version)
    assert CHANNEL in pq.read_table(folder / CATALOGUE_FILE)["title_id"].to_pylist()
    assert set(read_version_labels(folder).genres) == set(GENRES)
    assert (folder / DESCRIPTION_FILE).read_bytes() == source.read_bytes()


def test_its_answers_are_as_wide_as_its_labels_and_may_be_served(
    source: Path, trained: Trained
) -> None:
    assert trained.manifest is not None
    version: ExportedVersion = validated(source.parents[1] / "repository", trained.manifest.version)
    assert version.model.domain.classes[1:3] == (len(version.labels.genres), 4)


def test_it_has_learnt_from_the_newest_days_and_is_not_tested_on_them(
    source: Path, trained: Trained
) -> None:
    assert trained.manifest is not None
    assert trained.manifest.refitted
    data = load(source.parents[1] / "ours")
    assert trained.manifest.trained_until_ms == data.columns.start_ms.max()
    with pytest.raises(DataUnusableError, match="nothing is left to test it on"):
        exported(
            source.parents[1] / "ours",
            source.parents[1] / "repository",
            trained.manifest.version,
        )


def test_the_report_tells_baselines_groups_and_calibration(trained: Trained) -> None:
    report = trained.report
    assert list(report.models) == ["demo", "sasrec", "popularity"]
    kids = next(one for one in report.slices if one.name == "group: kids")
    assert 0 < kids.plays < report.tested
    assert {"genre", "kind"} <= report.calibration.keys()
    for told in (markdown(report), page(report)):
        assert "group: kids" in told
        assert f"{report.models['sasrec']['ndcg10']:.4f}" in told
    assert page(report).count("<svg") == 2 + len(report.calibration)


def test_a_model_that_passes_no_gate_is_told_and_not_exported(
    source: Path, description: SourceDescription, trained: Trained
) -> None:
    gates = description.gates.model_copy(
        update={
            "training": TrainingGates(
                ndcg10_over_popularity=1e6, ndcg10_over_best_baseline=1e6, profiles=1_000_000
            )
        }
    )
    held_back = train(source.parents[1], description.model_copy(update={"gates": gates}))
    assert held_back.manifest is None
    assert held_back.report.models == trained.report.models
    baselines = {name: held_back.report.models[name]["ndcg10"] for name in ("sasrec", "popularity")}
    best = max(baselines, key=lambda name: baselines[name])
    complaints = rf"(?s)profiles.*over_popularity.*of {best}, the best.*over_best_baseline"
    with pytest.raises(GateError, match=complaints):
        insist(held_back, held_back.run_dir / "report.html")


def test_a_training_begins_where_a_version_ended(
    source: Path, description: SourceDescription, trained: Trained
) -> None:
    assert trained.manifest is not None
    warm = train(source.parents[1], description, init=trained.manifest.version)
    assert warm.report.begun_from is not None
    assert warm.report.begun_from.labels == 1
    assert warm.run_dir != trained.run_dir


def test_a_training_of_another_experiment_does_not_begin_there(
    source: Path, description: SourceDescription, trained: Trained
) -> None:
    assert trained.manifest is not None
    other = description.training.model_copy(update={"experiment": "served"})
    with pytest.raises(WarmStartError):
        train(
            source.parents[1],
            description.model_copy(update={"training": other}),
            init=trained.manifest.version,
        )


def test_more_data_are_another_run(
    source: Path, description: SourceDescription, trained: Trained, tmp_path: Path
) -> None:
    file = replace(Service(profiles=60)).write(tmp_path / "theirs", epochs=1, days=20)
    take_in(read_description(file), file, tmp_path / "ours")
    runs = source.parents[1] / "runs"
    fewer = train_service(
        tmp_path / "ours",
        description,
        tmp_path / "repository",
        runs,
        ranks=Ranks(),
    )
    assert fewer.run_dir != trained.run_dir
    assert fewer.run_dir.parent == runs
