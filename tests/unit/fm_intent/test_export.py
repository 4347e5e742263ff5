from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from fm_intent.export import Clusters, Manifest, export, newest, read_manifest, versions
from fm_intent.model_config import configuration
from fm_intent.served import compiled, network
from fm_intent.served.compiled import library_name
from stream.domain.intent_map import IntentMap, read_map
from stream.exceptions import ExportError, NoVersionError
from tests.unit.fm_intent import tiny


def manifest(source: str = "made-up") -> Manifest:
    return Manifest(
        version=0,
        source=source,
        trained_at="2026-01-01T00:00:00+00:00",
        experiment="demo",
        seed=0,
        epochs=1,
        seconds=1.0,
        params=1,
        window=64,
        titles=30,
        trained_intents=["action"],
        data_sha256="0" * 64,
        metrics={"ndcg10": 0.1},
        report={},
        config={},
    )


def test_an_exported_model_answers_as_the_one_that_was_exported(tmp_path: Path) -> None:
    data = tiny.sequences()
    model = tiny.network(data)
    written = export(model, manifest(), tiny.windows(data), tmp_path)
    loaded = network.load(tmp_path / "fm_intent" / str(written.version) / "model.pt")
    with torch.inference_mode():
        one = model.answer(tiny.windows(data), model.titles(), 20)
        other = loaded.answer(tiny.windows(data), loaded.titles(), 20)
    assert torch.equal(one.next_title_hash, other.next_title_hash)
    assert torch.equal(one.user_BD, other.user_BD)


def test_each_export_takes_the_number_after_the_highest(tmp_path: Path) -> None:
    data = tiny.sequences()
    (tmp_path / "fm_intent" / "7").mkdir(parents=True)
    for _ in range(2):
        export(tiny.network(data), manifest(), tiny.windows(data), tmp_path)
    assert versions(tmp_path) == [7, 8, 9]


def test_a_number_that_another_export_took_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.sequences()
    export(tiny.network(data), manifest("first"), tiny.windows(data), tmp_path)
    seen = iter([[], [1]])
    monkeypatch.setattr("fm_intent.export.versions", lambda _: next(seen))
    second = export(tiny.network(data), manifest("second"), tiny.windows(data), tmp_path)
    assert second.version == 2
    first = read_manifest(tmp_path, 1)
    assert first is not None
    assert first.source == "first"


def test_a_version_is_found_again_by_its_source(tmp_path: Path) -> None:
    data = tiny.sequences()
    for source in ("one", "two", "one", "three"):
        export(tiny.network(data), manifest(source), tiny.windows(data), tmp_path)
    found = newest(tmp_path, "one")
    assert found is not None
    assert found.version == 3
    assert found == read_manifest(tmp_path, 3)
    assert newest(tmp_path, "four") is None


def test_an_absent_version_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NoVersionError, match="train"):
        read_manifest(tmp_path, 1)


def test_a_copy_that_answers_otherwise_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.sequences()
    model, other = tiny.network(data), tiny.network(data)
    with torch.no_grad():
        other.title.weight += 1
    monkeypatch.setattr(network, "save", lambda _, file: torch.save(_content(other), file))
    with pytest.raises(ExportError, match="is off by"):
        export(model, manifest(), tiny.windows(data), tmp_path)
    assert list((tmp_path / "fm_intent").iterdir()) == []


def test_a_version_is_served_by_the_compiled_pass_that_it_carries(tmp_path: Path) -> None:
    data = tiny.sequences()
    written = export(tiny.network(data), manifest(), tiny.windows(data), tmp_path)
    assert (written.served_by, written.why_recorded) == ("compiled", "")
    assert read_manifest(tmp_path, 1) == written
    assert (tmp_path / "fm_intent" / "1" / library_name()).exists()


def test_a_compiled_pass_that_answers_otherwise_is_not_to_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.sequences()
    other = tmp_path / "other" / "model_pass.cpp"
    other.parent.mkdir()
    right = Path(compiled.__file__).with_name("model_pass.cpp").read_text()
    assert "set(1e-5f)" in right
    other.write_text(right.replace("set(1e-5f)", "set(1e-1f)"))
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "_SOURCE", other)
        wrong = compiled.build(other.parent)
    wrong = wrong.rename(other.parent / library_name())
    monkeypatch.setattr("fm_intent.export.built", lambda: wrong)
    written = export(tiny.network(data), manifest(), tiny.windows(data), tmp_path / "models")
    assert written.served_by == "recorded"
    assert "is off by" in written.why_recorded


def test_a_version_exported_without_a_compiler_is_served_by_the_recorded_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.sequences()

    def no_compiler() -> Path:
        raise compiled.CompileError

    monkeypatch.setattr("fm_intent.export.built", no_compiler)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    written = export(tiny.network(data), manifest(), tiny.windows(data), tmp_path / "models")
    assert written.served_by == "recorded"
    assert "no g++" in written.why_recorded


def test_a_version_carries_the_whole_folder_of_what_is_served(tmp_path: Path) -> None:
    data = tiny.sequences()
    export(tiny.network(data), manifest(), tiny.windows(data), tmp_path)
    folder, served = tmp_path / "fm_intent" / "1", Path(network.__file__).parent
    ours = {one.name: one.read_bytes() for one in served.iterdir() if one.is_file()}
    assert {name: (folder / name).read_bytes() for name in ours} == ours


def test_a_version_can_be_read_by_a_triton_that_is_another_user(tmp_path: Path) -> None:
    data = tiny.sequences()
    before = os.umask(0o022)
    try:
        export(tiny.network(data), manifest(), tiny.windows(data), tmp_path)
    finally:
        os.umask(before)
    folder = tmp_path / "fm_intent" / "1"
    assert folder.stat().st_mode & 0o755 == 0o755
    assert all(one.stat().st_mode & 0o444 == 0o444 for one in folder.glob("*.py"))


def test_a_repository_gets_triton_s_configuration_with_its_first_version(tmp_path: Path) -> None:
    data, home = tiny.sequences(), tmp_path / "fm_intent"
    export(tiny.network(data), manifest(), tiny.windows(data), tmp_path)
    laid = {str(one.relative_to(home)): one.read_bytes() for one in home.rglob("*.pbtxt")}
    assert laid == configuration(Path("nowhere"))
    assert laid.keys() == {"config.pbtxt", "configs/gpu.pbtxt"}


def test_a_configuration_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    data, home = tiny.sequences(), tmp_path / "fm_intent"
    home.mkdir()
    (home / "config.pbtxt").write_text("# ours\n")
    export(tiny.network(data), manifest(), tiny.windows(data), tmp_path)
    assert {one.name: one.read_text() for one in home.rglob("*.pbtxt")} == {
        "config.pbtxt": "# ours\n"
    }


def test_centres_of_clusters_go_with_the_version_where_there_are_any(tmp_path: Path) -> None:
    data = tiny.sequences()
    model, centres = tiny.network(data), torch.rand(3, 16)
    without = export(model, manifest(), tiny.windows(data), tmp_path)
    clusters = Clusters(centres, IntentMap.of(centres.numpy()))
    given = export(model, manifest(), tiny.windows(data), tmp_path, clusters)
    folders = [tmp_path / "fm_intent" / str(one.version) for one in (without, given)]
    assert not (folders[0] / "centres.pt").exists()
    assert torch.equal(torch.load(folders[1] / "centres.pt", weights_only=True), centres)
    assert read_map(folders[1]) == clusters.map


def test_a_version_folder_needs_nothing_of_this_repository(tmp_path: Path) -> None:
    data = tiny.sequences()
    export(tiny.network(data), manifest(), tiny.windows(data), tmp_path)
    folder = tmp_path / "fm_intent" / "1"
    assert {path.name for path in folder.iterdir()} == {
        "__init__.py",
        "cache.py",
        "compiled.py",
        "manifest.json",
        "memory.py",
        "model.pt",
        "model.py",
        "model_pass.cpp",
        "network.py",
        "recorded.py",
        "ways.py",
        library_name(),
    }
    for code in folder.glob("*.py"):
        imports = [line.split()[1] for line in code.read_text().splitlines() if " import " in line]
        assert not {name.split(".")[0] for name in imports} & {
            "stream",
            "fm_intent",
            "features",
            "intentstream",
            "infra",
            "lab",
        }
    assert json.loads((folder / "manifest.json").read_text())["version"] == 1


def _content(model: network.FMIntent) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "architecture": asdict(model.architecture),
        "domain": asdict(model.domain),
        "state": model.state_dict(),
    }
