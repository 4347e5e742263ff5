"""Histories that are built in columns are those of the session code, event by event."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_intent.data import building, contract
from fm_intent.data.building import build
from fm_intent.data.histories import COLUMNS, read_histories
from stream.domain.catalogue import read_catalogue
from stream.domain.event_types import Event
from stream.domain.history import histories
from stream.domain.rules import Rules
from stream.exceptions import DataUnusableError
from tests.unit.stream.domain.test_history import a_month_of
from tests.unit.stream.strategies import histories as some_events

FEW = a_month_of(2, 40)
PROFILES = ("ann", "bob", "zoë", "ann\N{GRINNING FACE}", "Z")


def write_catalogue(folder: Path) -> None:
    columns = {
        "title_id": pa.array(["t1", "t2", "t4"]),
        "name": pa.array(["1", "2", "4"]),
        "genres": pa.array([[], [], []], pa.list_(pa.string())),
        "duration_s": pa.array([90.5, None, 100.1], pa.float32()),
    }
    pq.write_table(contract.table(contract.CATALOGUE_SCHEMA, columns), folder / "catalogue.parquet")


def write_day(folder: Path, day: str, events: Iterable[Event]) -> None:
    path = folder / "events" / f"day={day}" / "some.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [event.model_dump() for event in events]
    pq.write_table(pa.Table.from_pylist(rows, contract.EVENTS_SCHEMA), path)


def same_as_the_session_code(folder: Path, events: Iterable[Event]) -> None:
    found = read_histories(folder)
    rules = Rules(durations=read_catalogue(folder / "catalogue.parquet").durations)
    wanted = histories(events, rules)
    assert np.asarray(found.profile_id).tolist() == sorted(wanted)
    lengths = [len(wanted[profile].start_ms) for profile in sorted(wanted)]
    assert found.offset.tolist() == np.cumsum([0, *lengths]).tolist()
    for name in COLUMNS:
        parts = [getattr(wanted[profile], name) for profile in sorted(wanted)]
        np.testing.assert_array_equal(getattr(found, name), np.concatenate([[], *parts]), name)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


days_of_events = st.lists(
    st.tuples(some_events, st.lists(st.sampled_from(PROFILES), min_size=30, max_size=30)),
    min_size=1,
    max_size=3,
).map(
    lambda days: [
        [
            event.model_copy(update={"profile_id": profile})
            for event, profile in zip(events, profiles, strict=False)
        ]
        for events, profiles in days
    ]
)
"""Days whose events have the same ids again, with something else in them."""


@settings(max_examples=40, deadline=None)
@given(days_of_events)
def test_built_histories_are_those_of_the_session_code(days: Sequence[Sequence[Event]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_catalogue(folder)
        for number, events in enumerate(days):
            write_day(folder, f"2026-01-0{number + 1}", events)
        build(folder)
        same_as_the_session_code(folder, [event for events in days for event in events])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A month of events, in four days' files."""
    write_catalogue(tmp_path)
    events = a_month_of(7, 2_000)
    for number in range(4):
        write_day(tmp_path, f"2026-01-0{number + 1}", events[number::4])
    return tmp_path


def test_ranges_of_profiles_are_joined_apart_and_written_behind_each_other(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(build(source).folder)
    shutil.rmtree(build(source).folder)
    monkeypatch.setattr(building, "_AT_ONCE", 100)
    assert contents(build(source).folder) == whole
    same_as_the_session_code(source, a_month_of(7, 2_000))


def test_spark_makes_the_same_bytes(source: Path) -> None:
    spark = contents(build(source, "spark").folder)
    shutil.rmtree(source / "histories")
    assert spark == contents(build(source, "duckdb").folder)


def test_days_that_were_joined_by_one_engine_are_joined_with_new_ones_by_another(
    source: Path,
) -> None:
    build(source, "spark")
    late = [event.model_copy(update={"event_id": event.event_id + "x"}) for event in FEW]
    write_day(source, "2026-01-05", late)
    built = build(source, "duckdb")
    assert (built.days, built.kept_days, built.events) == (1, 4, len(FEW))
    same_as_the_session_code(source, [*a_month_of(7, 2_000), *late])


def test_a_day_that_changed_is_joined_again_and_the_others_are_not(source: Path) -> None:
    first = build(source)
    assert (first.days, first.kept_days, first.events) == (4, 0, 2_000)
    events = a_month_of(7, 2_000)
    write_day(source, "2026-01-02", [*events[1::4], *FEW])
    second = build(source)
    assert (second.days, second.kept_days) == (1, 3)
    assert not first.folder.exists()
    same_as_the_session_code(source, [*events, *FEW])
    third = build(source)
    assert (third.folder, third.days, third.kept_days) == (second.folder, 0, 4)


def test_the_number_of_profiles_and_interactions_is_told(source: Path) -> None:
    built = build(source)
    found = read_histories(source)
    assert built.profiles == len(found.profile_id) == 7
    assert built.interactions == len(found.action) == found.offset[-1]


def test_a_file_that_another_program_only_touched_is_the_same_day(source: Path) -> None:
    first = build(source)
    os.utime(source / "events" / "day=2026-01-03" / "some.parquet", (1, 1))
    assert build(source) == dataclasses.replace(first, days=0, kept_days=4, events=0)


@pytest.mark.parametrize(
    ("event_type", "without", "fault"),
    [
        ("play_start", "title_id", "1 without a title"),
        ("play_start", "playback_id", "1 without a playback_id"),
        ("title_open", "title_id", "1 without a title"),
        ("thumbs_up", "device", "1 of an unknown type"),
    ],
)
def test_events_that_cant_be_joined_are_counted_by_what_they_lack(
    tmp_path: Path, event_type: str, without: str, fault: str
) -> None:
    write_catalogue(tmp_path)
    row = {"event_id": "e", "profile_id": "p", "event_type": event_type, "occurred_at_ms": 1}
    row |= {"title_id": "t1", "playback_id": "s", "device": "tv"}
    events = pa.Table.from_pylist([{**row, without: None}, row | {"event_type": "impression"}])
    (tmp_path / "events" / "day=2026-01-01").mkdir(parents=True)
    pq.write_table(events, tmp_path / "events" / "day=2026-01-01" / "some.parquet")
    with pytest.raises(DataUnusableError, match=fault):
        build(tmp_path)
    assert not list((tmp_path / "histories").glob("*/*"))


def test_a_killed_build_leaves_nothing_that_looks_whole(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(building, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            build(source)
    built = build(source)
    assert (built.days, built.kept_days) == (0, 4)
    same_as_the_session_code(source, a_month_of(7, 2_000))
