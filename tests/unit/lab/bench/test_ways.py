"""The ways of the benchmark of a worker: what is run, and what is told of one that ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.bench.ways import BEFORE, Way, ways
from lab.exceptions import WayEndedError
from stream.settings import Settings


def test_the_code_of_before_is_a_way_where_there_is_one(tmp_path: Path) -> None:
    assert BEFORE not in ways(None)
    assert ways(tmp_path)[BEFORE] == Way(code=tmp_path)


def test_our_codes_alone_say_that_nothing_is_lost(tmp_path: Path) -> None:
    found = ways(tmp_path)
    assert [name for name, way in found.items() if way.is_ours] == ["worker", "before"]


def test_plain_programs_share_no_group() -> None:
    groups = [way.group for way in ways(None).values() if not way.is_ours]
    assert len({*groups}) == len(groups) == 3


def test_a_program_that_ended_by_itself_is_told_with_its_log(tmp_path: Path) -> None:
    way = Way(("no_such_module",), "plain")
    with (
        pytest.raises(WayEndedError, match="no_such_module ended with 1") as told,
        way.running(Settings(data_dir=tmp_path / "worker"), tmp_path / "log") as process,
    ):
        process.wait()
    assert "No module named no_such_module" in told.value.__notes__[0]


def test_a_way_runs_on_the_code_that_it_is_of(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("print('hello of', __file__)")
    log = tmp_path / "log"
    with (
        pytest.raises(WayEndedError, match="ended with 0"),
        Way(("mine",), "plain", code=tmp_path).running(
            Settings(data_dir=tmp_path / "worker"), log
        ) as process,
    ):
        process.wait()
    assert str(tmp_path / "mine.py") in log.read_text()
