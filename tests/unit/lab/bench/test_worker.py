"""The benchmark of a worker counts what Triton says, and tells how the worker compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lab.bench import worker
from lab.bench.worker import Run, counted, ratios

PAGE = """\
# HELP fm_intent_cache_hits_total Windows of which kept positions were reused
# TYPE fm_intent_cache_hits_total counter
fm_intent_cache_hits_total{instance="a",model="fm_intent",version="1"} 12
fm_intent_cache_hits_total{instance="a",model="fm_intent",version="2"} 30
fm_intent_cache_misses_total{instance="a",model="fm_intent",version="1"} 2
fm_intent_cache_capacity_profiles{instance="a",model="fm_intent",version="1"} 900
nv_inference_request_success{model="fm_intent",version="1"} 8
"""


def test_the_caches_counters_are_summed_over_versions_and_nothing_else_is() -> None:
    assert counted(PAGE) == {"hits": 42.0, "misses": 2.0}


def test_ratios_tell_how_many_times_as_fast_as_each_way_the_worker_is() -> None:
    rows = {"worker": {"events_per_s": 9_000.0}, "faust": {"events_per_s": 200.0}}
    assert ratios(rows) == {"worker": 1.0, "faust": 45.0}


def test_there_are_no_ratios_without_the_worker() -> None:
    assert ratios({"faust": {"events_per_s": 200.0}}) == {}


def test_a_run_that_is_cut_leaves_the_last_whole_result_and_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "worker.json"
    out.write_text("whole")
    run = Run(out, {"events": 3})
    run.result["wrong_profiles"]["new"] = {"worker": 0}
    run.keep()
    assert out.read_text() == "whole"
    found = json.loads((tmp_path / "worker.unfinished.json").read_text())
    assert found["wrong_profiles"] == {"new": {"worker": 0}}
    run.finish()
    assert json.loads(out.read_text()) == found
    assert [one.name for one in tmp_path.iterdir()] == ["worker.json"]


def test_the_code_of_before_is_asked_for_by_its_revision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "before"])
    with pytest.raises(SystemExit, match="2"):
        worker.main()
    assert "--before REV" in capsys.readouterr().err
