from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

ASKS_FEAST = """
import feast
print("typeguard" in feast.FeatureView.__init__.__code__.co_names)
"""
AFTER_A_COMMAND = """
import sys
from intentstream.cli.main import main
sys.argv = ["intentstream", "--help"]
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    ("program", "checked"), [(ASKS_FEAST, "True"), (AFTER_A_COMMAND + ASKS_FEAST, "False")]
)
def test_our_command_line_alone_has_feast_imported_without_type_checks(
    program: str, checked: str
) -> None:
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.split()[-1] == checked


def test_commands_of_a_package_that_is_gone_are_left_out_and_all_others_work(tmp_path) -> None:
    noted = tmp_path / "another-1.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1\n")
    (noted / "entry_points.txt").write_text("[intentstream.commands]\nanother = another.cli:app\n")
    done = subprocess.run(
        [sys.executable, "-m", "intentstream", "schema", "browse-events"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)
    assert "what another.cli adds to intentstream.commands is left out" in done.stderr


def test_an_error_that_quotes_strangers_is_told_as_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "intentstream", "prepare", "--source", "[/b]\x1b[2J\u202e"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert "UnknownSourceError: no source '[/b]" in done.stderr


def test_a_folder_named_as_a_package_of_ours_in_the_working_directory_hides_nothing(
    tmp_path,
) -> None:
    for name in ("features", "stream"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError")
    line = [sys.executable, "-m", "intentstream", "features", "init", "into"]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "into" / "feature_store.yaml").exists()
