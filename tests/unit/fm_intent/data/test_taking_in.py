"""A service's files, as they are taken in by their description."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fm_intent.data.description import read_description
from fm_intent.data.event_files import event_days
from fm_intent.data.record_faults import REFUSED
from fm_intent.data.taking_in import REJECTED_FILE, TakenIn, take_in
from stream.domain.version_labels import LABELS_FILE, VersionLabels
from stream.exceptions import DataUnusableError
from tests.made_up_service import CHANNEL, Service

SERVICE = Service(profiles=10)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return SERVICE.write(tmp_path / "theirs", days=3)


def taken(source: Path) -> TakenIn:
    return take_in(read_description(source), source, source.parents[1] / "ours")


def ids(source: Path) -> list[str]:
    folder = source.parents[1] / "ours"
    paths = [str(path) for files in event_days(folder).values() for path in files]
    query = "SELECT event_id FROM read_parquet($paths) ORDER BY 1"
    return [one for (one,) in duckdb.connect().execute(query, {"paths": paths}).fetchall()]


def test_every_event_of_the_files_is_in_the_folder_of_its_day(source: Path) -> None:
    taken(source)
    assert ids(source) == sorted(one["messageId"] for one in SERVICE.messages(0, 3))
    for day, files in event_days(source.parents[1] / "ours").items():
        for path in files:
            times = pq.read_table(path)["occurred_at_ms"].cast("timestamp[ms]").to_pylist()
            assert {f"day={one.date()}" for one in times} == {day}


def test_labels_are_learnt_from_the_catalogue_and_the_devices(source: Path) -> None:
    found = taken(source)
    folder = source.parents[1] / "ours"
    assert VersionLabels.of_json((folder / LABELS_FILE).read_bytes(), "") == found.labels
    assert set(found.labels.kinds) == {"Spielfilm", "Serie", "Live", "Kurzclip"}
    assert "Shonen" not in found.labels.genres
    assert found.labels.genre_numbers(["Shonen"]) == found.labels.genre_numbers(["Shōnen"])
    assert set(found.labels.devices) == {"Fernseher", "Handy", "Tablet", "other"}


def test_a_file_is_taken_in_once(source: Path) -> None:
    first = taken(source)
    again = taken(source)
    assert (again.files, again.kept_files) == (0, first.files)


def test_what_came_of_a_file_that_changed_or_went_is_replaced(source: Path) -> None:
    taken(source)
    one, two, *_ = sorted((source.parent / "events").glob("*.jsonl"))
    gone = [json.loads(line)["messageId"] for line in one.read_text().splitlines()]
    one.unlink()
    changed = two.read_text().splitlines()
    two.write_text("\n".join(changed[1:]) + "\n")
    gone.append(json.loads(changed[0])["messageId"])
    found = taken(source)
    assert found.files == 1
    assert ids(source) == sorted({one["messageId"] for one in SERVICE.messages(0, 3)} - set(gone))


def test_what_the_description_excludes_is_left_out(source: Path) -> None:
    source.write_text(source.read_text() + f'exclude: {{titles: ["{CHANNEL}"]}}\n')
    taken(source)
    kept = [one for one in SERVICE.messages(0, 3) if one["properties"]["program"] != CHANNEL]
    assert ids(source) == sorted(one["messageId"] for one in kept)


def test_a_broken_record_is_told_with_its_reason(source: Path) -> None:
    path = next((source.parent / "events").glob("*.jsonl"))
    broken = json.loads(path.read_text().splitlines()[0]) | {"timestamp": "yesterday"}
    path.write_text(path.read_text() + json.dumps(broken) + "\n")
    found = taken(source)
    assert sum(found.rejected.values()) == 1
    (line,) = (source.parents[1] / "ours" / REJECTED_FILE).read_text().splitlines()
    assert json.loads(line)["reason"] in found.rejected


AT_MS = 1_740_000_000_000
SOUND = {
    "event_id": "e",
    "profile_id": "p",
    "event_type": "play_start",
    "occurred_at_ms": AT_MS,
    "title_id": "t",
    "playback_id": "s",
}
DAMAGE = {
    "field_missing": {"playback_id": None},
    "type_unknown": {"event_type": "play_backwards"},
    "id_too_long": {"event_id": "x" * 257},
    "time_unreadable": {"occurred_at_ms": "yesterday"},
    "time_out_of_range": {"occurred_at_ms": 1 << 60},
    "time_before_1990": {"occurred_at_ms": AT_MS // 1000},
    "time_in_future": {"occurred_at_ms": 10 * AT_MS},
    "number_out_of_range": {"watched_s": -1},
}


def ours(folder: Path, lines: list[str], gates: str = "") -> Path:
    """A source whose events are ours already, in JSON lines."""
    folder = folder / "theirs"
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"title_id": ["t"], "genres": [["Krimi"]]}), folder / "titles.parquet")
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    description = folder / "source.yaml"
    description.write_text(
        "name: ours\nevents: {path: events.jsonl}\ncatalogue: {path: titles.parquet}\n" + gates
    )
    return description


def sound(count: int) -> list[str]:
    return [json.dumps(SOUND | {"event_id": f"e{number}"}) for number in range(count)]


@pytest.mark.parametrize("reason", REFUSED)
def test_a_record_that_a_worker_would_not_take_is_left_out_and_told(
    tmp_path: Path, reason: str
) -> None:
    lines = {name: json.dumps(SOUND | changed) for name, changed in DAMAGE.items()}
    lines["line_unreadable"] = '{"half": "a li'
    source = ours(tmp_path, [*sound(200), lines[reason]])
    found = taken(source)
    assert ids(source) == sorted(json.loads(line)["event_id"] for line in sound(200))
    assert (found.records, dict(found.rejected)) == (201, {reason: 1})
    (line,) = (tmp_path / "ours" / REJECTED_FILE).read_text().splitlines()
    assert json.loads(line)["reason"] == reason


def test_a_line_of_csv_that_is_none_is_told(tmp_path: Path) -> None:
    source = ours(tmp_path, [])
    source.write_text(source.read_text().replace("events.jsonl", "events.csv"))
    rows = [dict(json.loads(line)) for line in sound(200)]
    lines = [",".join(SOUND), *(",".join(map(str, row.values())) for row in rows), "e,p,too few"]
    (source.parent / "events.csv").write_text("\n".join(lines) + "\n")
    found = taken(source)
    assert (found.records, dict(found.rejected)) == (201, {"line_unreadable": 1})
    (line,) = (tmp_path / "ours" / REJECTED_FILE).read_text().splitlines()
    assert "e,p,too few" in json.loads(line)["detail"]


def test_more_that_are_left_out_than_the_gates_allow_end_it(tmp_path: Path) -> None:
    damaged = [json.dumps(SOUND | DAMAGE["time_in_future"])] * 20
    with pytest.raises(DataUnusableError, match=r"of 220 records .*: 20 time_in_future"):
        taken(ours(tmp_path, sound(200) + damaged))
    allowed = "gates: {check: {time_in_future: {fail: 0.5}}}\n"
    assert taken(ours(tmp_path, sound(200) + damaged, allowed)).rejected.total() == 20


def test_every_file_that_cannot_be_read_is_told_at_once_or_left_out_by_the_gate(
    tmp_path: Path,
) -> None:
    source = ours(tmp_path, sound(3))
    source.write_text(source.read_text().replace("events.jsonl", '"events*"'))
    for number in (1, 2):
        packed = gzip.compress(random.Random(1).randbytes(3000).hex().encode())
        (source.parent / f"events{number}.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataUnusableError, match=r"events1.*\n.*events2"):
        taken(source)
    source.write_text(source.read_text() + "gates: {check: {file_unreadable: {fail: 0.9}}}\n")
    found = taken(source)
    assert (found.records, found.files, found.kept_files) == (3, 0, 1)
    assert found.rejected["file_unreadable"] == 2
    lines = (tmp_path / "ours" / REJECTED_FILE).read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["file_unreadable"] * 2
    assert len(ids(source)) == 3


def test_a_column_that_only_a_later_day_has_is_no_fault_and_one_that_none_has_is(
    tmp_path: Path,
) -> None:
    source = ours(tmp_path, sound(2))
    told = source.read_text().replace("events.jsonl", '"*.jsonl", columns: {device: dvc}')
    source.write_text(told)
    with pytest.raises(DataUnusableError, match=r"events.columns.device: dvc.*title_id"):
        taken(source)
    line = json.dumps({**SOUND, "event_id": "later", "dvc": "TV"})
    (source.parent / "later.jsonl").write_text(f"{line}\n")
    assert "TV" in taken(source).labels.devices


def test_a_broken_line_of_json_is_told_as_it_stands_with_its_number(tmp_path: Path) -> None:
    source = ours(tmp_path, [*sound(200), "", '{"half": "a li'])
    taken(source)
    (line,) = (tmp_path / "ours" / REJECTED_FILE).read_text().splitlines()
    assert json.loads(line)["detail"] == 'line 202: {"half": "a li'
