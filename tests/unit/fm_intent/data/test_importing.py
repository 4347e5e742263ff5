from __future__ import annotations

import gzip
import json
import random
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from fm_intent.data import importing
from fm_intent.data.contract import EVENTS_SCHEMA
from fm_intent.data.importing import Imported, import_files
from stream.exceptions import DataUnusableError
from tests.unit.stream.adapters.samples import NETFLIX_ROW, OURS

if TYPE_CHECKING:
    from pathlib import Path

DAY_MS = 86_400_000
BEGAN = 1_714_780_800_000  # a midnight


def event(number: int, time: int) -> dict[str, Any]:
    return {**OURS, "event_id": f"e{number:06}", "occurred_at_ms": time}


def lines(file: Path, *given: Any) -> str:
    file.write_text(
        "".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in given)
    )
    return str(file)


def imported(into: Path, *files: str, adapter: str = "intent") -> list[Imported]:
    return list(import_files(files, into, adapter=adapter))


def parts(into: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        str(file.parent.relative_to(into)): pq.read_table(file, partitioning=None).to_pylist()
        for file in sorted((into / "events").rglob("*.parquet"))
    }


def everything(into: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(into)): file.read_bytes() for file in into.rglob("*") if file.is_file()
    }


def test_events_lie_by_day_in_order_in_the_columns_of_the_contract(tmp_path: Path) -> None:
    events = [event(n, BEGAN + n * DAY_MS // 3) for n in range(6)]
    shuffled = random.Random(1).sample(events, len(events))
    (told,) = imported(tmp_path / "out", lines(tmp_path / "a.jsonl", *shuffled))
    found = parts(tmp_path / "out")
    assert list(found) == ["events/day=2024-05-04", "events/day=2024-05-05"]
    ids = [[row["event_id"] for row in rows] for rows in found.values()]
    assert ids == [["e000000", "e000001", "e000002"], ["e000003", "e000004", "e000005"]]
    assert (told.records, told.events, told.days) == (6, 6, 2)
    file = next((tmp_path / "out").rglob("part-*.parquet"))
    assert pq.read_schema(file).equals(EVENTS_SCHEMA)


def test_more_than_one_batch_is_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_BATCH", 7)
    events = [event(n, BEGAN - n * DAY_MS // 20) for n in range(100)]
    imported(tmp_path / "out", lines(tmp_path / "a.jsonl", *events))
    found = parts(tmp_path / "out")
    rows = [row for day in found.values() for row in day]
    assert [row["event_id"] for row in rows] == sorted(
        (one["event_id"] for one in events), reverse=True
    )
    assert all(
        f"events/day=2024-0{4 + (row['occurred_at_ms'] >= BEGAN - 3 * DAY_MS)}" in day
        for day, rows in found.items()
        for row in rows
    )


def test_the_same_file_twice_changes_nothing(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", event(1, BEGAN), "broken\n")
    (first,) = imported(tmp_path / "out", file)
    before = everything(tmp_path / "out")
    (again,) = imported(tmp_path / "out", file)
    assert everything(tmp_path / "out") == before
    assert (first.was_there, again.was_there) == (False, True)
    assert (again.events, again.rejected) == (1, {"not_json": 1})


def test_another_name_for_the_same_bytes_is_the_same_file(tmp_path: Path) -> None:
    one = lines(tmp_path / "a.jsonl", event(1, BEGAN))
    other = lines(tmp_path / "b.jsonl", event(1, BEGAN))
    _, again = imported(tmp_path / "out", one, other)
    assert again.was_there


def test_an_import_that_was_cut_short_is_made_good_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lines(tmp_path / "a.jsonl", event(1, BEGAN), event(2, BEGAN + DAY_MS), "broken\n")
    imported(tmp_path / "whole", file)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importing, "_write", die)
        with pytest.raises(KeyboardInterrupt):
            imported(tmp_path / "out", file)
    imported(tmp_path / "out", file)
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")


def test_rejected_records_are_kept_with_their_reasons(tmp_path: Path) -> None:
    late = event(1, 1 << 52)
    one = lines(tmp_path / "a.jsonl", {**OURS, "profile_id": ""}, late, "broken\n")
    other = lines(tmp_path / "b.jsonl", {**OURS, "event_type": "dance"}, [1, 2])
    imported(tmp_path / "out", one, other)
    told = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").open()]
    assert sorted((row["file"], row["record"], row["reason"]) for row in told) == [
        (one, 1, "missing_field"),
        (one, 2, "out_of_range"),
        (one, 3, "not_json"),
        (other, 1, "unknown_event_type"),
        (other, 2, "not_an_object"),
    ]


def test_what_is_passed_over_is_counted_by_why(tmp_path: Path) -> None:
    trailer = {**NETFLIX_ROW, "Supplemental Video Type": "TRAILER"}
    header = ",".join(NETFLIX_ROW)
    rows = [",".join(row.values()) for row in (NETFLIX_ROW, trailer)]
    file = tmp_path / "ViewingActivity.csv"
    file.write_text("\n".join([header, *rows]))
    (told,) = imported(tmp_path / "out", str(file), adapter="netflix")
    assert (told.records, told.events, told.passed_over) == (2, 2, {"trailer": 1})


def test_a_file_of_nothing_gives_no_day(tmp_path: Path) -> None:
    (told,) = imported(tmp_path / "out", lines(tmp_path / "a.jsonl"))
    assert (told.records, told.days) == (0, 0)


def test_a_broken_line_is_kept_as_it_stands_with_its_number(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", "\n", OURS, "\n", '{"event_id": "e2", "prof\n', OURS)
    table = tmp_path / "b.csv"
    table.write_text("event_id;profile_id\nx;y;z\n")
    imported(tmp_path / "out", file)
    imported(tmp_path / "out", str(table))
    told = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").open()]
    shown = {row["file"]: (row["value"], row["detail"].partition(":")[0]) for row in told}
    assert shown == {
        file: ('{"event_id": "e2", "prof', "line 4"),
        str(table): ("x;y;z", "line 2"),
    }


def test_a_file_that_cannot_be_read_is_named_once_all_others_are_imported(tmp_path: Path) -> None:
    broken = [tmp_path / "0.jsonl.gz", tmp_path / "2.jsonl.gz"]
    for one in broken:
        one.write_bytes(gzip.compress(json.dumps(OURS).encode())[:-12])
    sound = [lines(tmp_path / f"{n}.jsonl", event(n, BEGAN + n)) for n in (1, 3)]
    names = sorted([*map(str, broken), *sound])
    with pytest.raises(DataUnusableError, match=r"0.jsonl.gz.*\n.*2.jsonl.gz"):
        imported(tmp_path / "out", *names)
    files = (tmp_path / "out" / "events").rglob("*.parquet")
    found = [one for file in files for one in pq.read_table(file)["event_id"].to_pylist()]
    assert sorted(found) == ["e000001", "e000003"]
