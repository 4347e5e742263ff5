"""A version that must not be served is refused with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fm_intent.export import export
from fm_intent.exported import ExportedVersion
from fm_intent.validation import differences, golden_windows, validated
from stream.domain.divergence import divergence
from stream.exceptions import NoVersionError, VersionRefusedError
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.test_export import manifest


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tiny.sequences()
    home = tmp_path_factory.mktemp("exports")
    export(tiny.network(data), manifest(), tiny.windows(data), home)
    return home


@pytest.fixture
def repository(exports: Path, tmp_path: Path) -> Path:
    """With version 1, for a test to spoil."""
    return Path(shutil.copytree(exports, tmp_path / "models"))


def spoil(repository: Path, name: str, before: str, after: str) -> None:
    file = repository / "fm_intent" / "1" / name
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_a_sound_version_is_validated_and_answers(exports: Path) -> None:
    exported = validated(exports, 1)
    windows = golden_windows(exported)
    assert exported.manifest.version == 1
    assert set(exported.answer(windows).model_version) == {"1"}
    assert {1, 2, 64} <= set(windows.length[:, 0].tolist())
    assert np.isnan(windows.watched_share).any()


def test_validation_leaves_the_folder_as_it_was(exports: Path) -> None:
    folder = exports / "fm_intent" / "1"
    before = (folder.stat().st_mtime_ns, sorted(folder.iterdir()))
    validated(exports, 1)
    assert (folder.stat().st_mtime_ns, sorted(folder.iterdir())) == before


def test_a_version_that_is_not_there_is_no_refusal(exports: Path) -> None:
    with pytest.raises(NoVersionError):
        validated(exports, 2)


FAULTS = {
    "action_probs does not sum to 1": ("network.py", "logits[:, 0].softmax(-1)", "logits[:, 0]"),
    "descending part of a distribution": ("network.py", "pad(best,", "pad(-best,"),
    r"next_title_hash has shape \[12, 21\]": ("network.py", "(0, missing))", "(0, missing + 1))"),
    "user_embedding holds something": ("network.py", "user_BD=user_BD,", "user_BD=user_BD / 0,"),
    "a cache that held another window, .*user_embedding is off by": (
        "compiled.py",
        ".mT / sqrt(each)",
        ".mT / each",
    ),
    r"imports \.networks, which the version lacks": (
        "cache.py",
        "from .network import",
        "from .networks import",
    ),
    "model.py imports stream.domain.labels, which no server has": (
        "model.py",
        "import torch\n",
        "import torch\nimport stream.domain.labels\n",
    ),
    "model.py: invalid syntax": ("model.py", "import torch\n", "import torch as\n"),
    "its manifest is that of version 7": ("manifest.json", '"version": 1', '"version": 7'),
    "it can't be run: AttributeError": ("network.py", "def answer(", "def answers("),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_version_whose_code_is_wrong_is_refused(repository: Path, reason: str) -> None:
    spoil(repository, *FAULTS[reason])
    with pytest.raises(VersionRefusedError, match=reason):
        validated(repository, 1)


def test_a_version_of_before_that_is_no_package_is_validated(repository: Path) -> None:
    folder = repository / "fm_intent" / "1"
    (folder / "__init__.py").unlink()
    code = [
        "cache.py",
        "compiled.py",
        "memory.py",
        "model.py",
        "network.py",
        "recorded.py",
        "ways.py",
    ]
    assert sorted(one.name for one in folder.glob("*.py")) == code
    assert validated(repository, 1).manifest.version == 1


def test_a_version_may_have_more_code_if_it_has_all_that_this_imports(repository: Path) -> None:
    rooms = repository / "fm_intent" / "1" / "rooms"
    rooms.mkdir()
    (rooms / "__init__.py").write_text("from . import first\nfrom ..network import load\n")
    (rooms / "first.py").write_text("")
    spoil(repository, "model.py", "import torch\n", "import torch\nfrom . import rooms\n")
    assert validated(repository, 1).manifest.version == 1
    (rooms / "first.py").unlink()
    with pytest.raises(VersionRefusedError, match=r"rooms/__init__.py imports \.first, which"):
        validated(repository, 1)


@pytest.mark.parametrize("name", ["cache.py", "model.py", "model.pt"])
def test_a_version_that_lacks_a_file_is_refused(repository: Path, name: str) -> None:
    (repository / "fm_intent" / "1" / name).unlink()
    with pytest.raises(VersionRefusedError, match=name):
        validated(repository, 1)


def test_a_version_with_damaged_weights_is_refused(repository: Path) -> None:
    file = repository / "fm_intent" / "1" / "model.pt"
    content = torch.load(file, weights_only=True)
    content["state"]["attend.weight"][:] = torch.nan
    torch.save(content, file)
    with pytest.raises(VersionRefusedError):
        validated(repository, 1)


def test_a_version_does_not_diverge_from_itself_but_from_another(exports: Path) -> None:
    one = ExportedVersion(exports, 1)
    other = ExportedVersion(exports, 1)
    with torch.no_grad():
        other.model.item.outlet.weight *= -1
    windows = golden_windows(one)
    assert list(differences(one.answer(windows), one.answer(windows))) == []
    apart = divergence(one.answer(windows), other.answer(windows))
    assert (apart.overlap < 1).any()
    assert not list(
        divergence(one.answer(windows), one.answer(windows)).heads["genre"].nonzero()[0]
    )
