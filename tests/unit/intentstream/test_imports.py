from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from intentstream.cli.main import app
from stream.exceptions import AdapterOptionsError
from tests.unit.stream.adapters.samples import JELLYFIN_ROW, OURS

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["data", "import", *arguments], catch_exceptions=False)
    return done.exit_code, done.output


def test_a_file_is_imported_through_an_adapter_with_its_options(tmp_path: Path) -> None:
    (tmp_path / "backup.tsv").write_text("\t".join(JELLYFIN_ROW.values()) + "\n")
    code, output = run(
        *("--adapter", "jellyfin-reports", "--option", "time_zone=Europe/Berlin"),
        *("--into", str(tmp_path / "out"), "--json", str(tmp_path / "backup.tsv")),
    )
    told = json.loads(output)
    assert (code, told["records"], told["events"]) == (0, 1, 2)
    assert (tmp_path / "out" / "events" / "day=2024-05-04").is_dir()


def test_rejected_records_have_an_exit_code_of_their_own_and_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(OURS) + "\nbroken\n")
    code, output = run(
        "--adapter", "intent", "--into", str(tmp_path / "out"), str(tmp_path / "a.jsonl")
    )
    assert code == 3
    assert "1 not_json" in output
    assert "rejected.jsonl" in output


@pytest.mark.parametrize("option", ["time_zone", "time_zone=Nowhere"])
def test_a_wrong_option_is_told(tmp_path: Path, option: str) -> None:
    with pytest.raises(AdapterOptionsError, match=r"KEY=VALUE|no time zone"):
        run(*("--adapter", "jellyfin-reports", "--option", option, "--into", str(tmp_path), "x"))
