from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.checkout import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

ASK = "from stream.home import HOME; print(HOME)"


def answer(folder: Path, *, also: Path) -> str:
    """The home of a process in a folder that finds `also` before all that is installed."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(also)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def installed(folder: Path, origin: object) -> Path:
    """A folder in which a package manager has noted where `intentstream` comes from."""
    noted = folder / "intentstream-9.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text("Metadata-Version: 2.1\nName: intentstream\nVersion: 9\n")
    if origin is not None:
        (noted / "direct_url.json").write_text(json.dumps(origin))
    return folder


def test_of_an_editable_installation_it_is_the_checkout_wherever_one_is(tmp_path: Path) -> None:
    assert answer(tmp_path, also=tmp_path) == str(REPOSITORY)


def test_an_editable_checkout_is_found_whatever_its_name_holds(tmp_path: Path) -> None:
    origin = {"url": (tmp_path / "my intents").as_uri(), "dir_info": {"editable": True}}
    also = installed(tmp_path, origin)
    assert answer(tmp_path, also=also) == str(tmp_path / "my intents")


def test_of_a_wheel_it_is_the_working_directory(tmp_path: Path) -> None:
    for name, origin in {
        "file": {"url": "file:///wheels/intentstream.whl", "archive_info": {}},
        "folder": {"url": "file:///intentstream", "dir_info": {}},
        "index": None,
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        assert answer(folder, also=installed(folder, origin)) == str(folder)
