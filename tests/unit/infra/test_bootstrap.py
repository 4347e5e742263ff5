from __future__ import annotations

import json
import shutil
import tomllib
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from infra import bootstrap

if TYPE_CHECKING:
    from pathlib import Path


class Work:
    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(bootstrap, "TIMES", tmp_path / "setup.json")
    return Work()


def test_a_step_with_unchanged_inputs_is_skipped(tmp_path: Path, work: Work) -> None:
    for _ in range(2):
        bootstrap.step("things", ["input"], tmp_path / "things", work)
    assert work.runs == 1


def test_a_step_with_a_changed_input_runs_again(tmp_path: Path, work: Work) -> None:
    for value in ("old", "new"):
        bootstrap.step("things", [value], tmp_path / "things", work)
    assert work.runs == 2


def test_a_step_runs_again_when_what_it_made_is_gone(tmp_path: Path, work: Work) -> None:
    for _ in range(2):
        bootstrap.step("things", ["input"], tmp_path / "things", work)
        shutil.rmtree(tmp_path / "things")
    assert work.runs == 2


def test_a_step_that_fails_runs_again(tmp_path: Path, work: Work) -> None:
    def fail() -> None:
        raise bootstrap.SetupError("on purpose")

    with pytest.raises(bootstrap.SetupError):
        bootstrap.step("things", ["input"], tmp_path / "things", fail)
    bootstrap.step("things", ["input"], tmp_path / "things", work)
    assert work.runs == 1


def test_the_time_of_a_skipped_step_stays_in_the_total(tmp_path: Path, work: Work) -> None:
    bootstrap.TIMES.write_text(json.dumps({"setup_s": 2.5, "steps": {"before": 2.5}}))
    bootstrap.step("things", ["input"], tmp_path / "things", work)
    recorded = json.loads(bootstrap.TIMES.read_text())
    assert recorded["steps"].keys() == {"before", "things"}
    assert recorded["setup_s"] == sum(recorded["steps"].values())


def test_set_up_makes_the_model_repository_that_compose_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "triton" / "models"
    monkeypatch.setattr("sys.argv", ["bootstrap.py"])
    monkeypatch.setattr(bootstrap, "step", lambda *_: None)
    monkeypatch.setattr(bootstrap, "MODELS", models)
    bootstrap.main()
    assert models.is_dir()


def test_an_old_python_is_refused_with_the_way_to_name_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.version_info", (3, 10, 4))
    with pytest.raises(bootstrap.SetupError, match=r"PYTHON=python3\.11"):
        bootstrap.check_python()


def test_missing_packages_are_named_to_who_may_not_install_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(bootstrap.SetupError, match=r"openjdk-17-jre-headless maven redis-server"):
        bootstrap.provide_programs()


def test_set_up_and_images_install_the_libraries_of_every_codec_of_kafka() -> None:
    # An image installs no extra of ours.
    project = tomllib.loads(bootstrap.PYPROJECT.read_text())["project"]
    needs = {one.name: one for one in map(Requirement, project["dependencies"])}
    assert {"lz4", "snappy", "zstd"} <= needs["aiokafka"].extras
    pinned = {line.partition("==")[0] for line in bootstrap.CONSTRAINTS.read_text().splitlines()}
    assert "cramjam" in pinned
