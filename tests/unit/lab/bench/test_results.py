"""A benchmark keeps its result where its command line says, and says what it measures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lab.bench.results import keep, result_file


def test_the_result_is_kept_where_the_command_line_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "mine.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--out", str(out)])
    keep({"rows": 3}, result_file("recovery", "How fast."))
    assert json.loads(out.read_text()) == {"rows": 3}


def test_help_tells_what_is_measured_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lab.bench import recovery

    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    with pytest.raises(SystemExit, match="0"):
        recovery.main()
    told = capsys.readouterr().out
    assert "python -m lab.bench.recovery" in told
    assert "How fast a worker reads the states" in told
    assert "docs/results/recovery.json" in told
