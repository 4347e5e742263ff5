from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from stream.plugins import plugins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GROUP = "intentstream.tests"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, of which one adds something: what `ours_too.it` is."""
    noted = tmp_path / "another-1.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1\n")
    (noted / "entry_points.txt").write_text(f"[{GROUP}]\none = ours_too.it:WHAT\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("ours_too", "ours_too.it"):
        sys.modules.pop(name, None)


def test_what_a_package_adds_is_found(installed: Path) -> None:
    (installed / "ours_too").mkdir()
    (installed / "ours_too" / "it.py").write_text("WHAT = 'this'")
    assert list(plugins(GROUP)) == ["this"]


@pytest.mark.usefixtures("installed")
def test_a_package_that_is_gone_adds_nothing_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert list(plugins(GROUP)) == []
    assert f"what ours_too.it adds to {GROUP} is left out" in caplog.text


def test_a_package_that_lacks_another_is_an_error_of_its_own(installed: Path) -> None:
    (installed / "ours_too").mkdir()
    (installed / "ours_too" / "it.py").write_text("import no_such_module")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        list(plugins(GROUP))
