import gzip
import json
from datetime import UTC, date, datetime

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from fm_intent.data.contract import CATALOGUE_SCHEMA, EVENTS_SCHEMA
from fm_intent.data.description import SourceDescription
from fm_intent.data.files import find_files
from fm_intent.data.reading import event_batches, read_catalogue_files
from stream.exceptions import DataUnusableError

EVENTS = [
    {
        "event_id": "007",
        "profile_id": "ann",
        "event_type": "play_start",
        "occurred_at_ms": 1_700_000_000_000,
        "title_id": "12",
        "playback_id": "s1",
        "watched_s": 1.5,
        "season": 2,
        "device": "Apple TV",
    },
    {
        "event_id": "8",
        "profile_id": "bob",
        "event_type": "search",
        "occurred_at_ms": 1_700_000_001_000,
        "query": "what, then?",
    },
]


def _description(catalogue="none", events="none", **other) -> SourceDescription:
    def section(told):
        return told if isinstance(told, dict) else {"path": str(told)}

    return SourceDescription.model_validate(
        {"name": "x", "catalogue": section(catalogue), "events": section(events), **other}
    )


def _events(description: SourceDescription) -> list[dict]:
    batches = list(event_batches(description))
    assert all(batch.schema == EVENTS_SCHEMA for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    return sorted(
        ({name: value for name, value in row.items() if value is not None} for row in rows),
        key=lambda row: row["event_id"],
    )


def _csv(rows: list[dict], separator: str = ",") -> str:
    names = list({name: None for row in rows for name in row})
    lines = [separator.join(names)]
    for row in rows:
        values = (str(row.get(name, "")) for name in names)
        lines.append(separator.join(f'"{one}"' if separator in one else one for one in values))
    return "\n".join(lines) + "\n"


def test_events_are_the_same_from_parquet_json_lines_and_csv(tmp_path) -> None:
    rows = [{name: row.get(name) for name in EVENTS_SCHEMA.names} for row in EVENTS]
    pq.write_table(pa.Table.from_pylist(rows, EVENTS_SCHEMA), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in EVENTS))
    (tmp_path / "a.csv").write_text(_csv(EVENTS))
    (tmp_path / "a.tsv").write_text(_csv(EVENTS, "\t"))
    for name in ("a.parquet", "a.jsonl", "a.csv", "a.tsv"):
        assert _events(_description(events=tmp_path / name)) == EVENTS, name


def test_a_folder_is_read_with_all_below_it_but_what_writers_hide(tmp_path) -> None:
    for number, row in enumerate(EVENTS):
        folder = tmp_path / f"day={number}"
        folder.mkdir()
        (folder / "part.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    (tmp_path / "_tmp").mkdir()
    (tmp_path / "_tmp" / "part.jsonl").write_text(json.dumps(EVENTS[0]))
    (tmp_path / "_SUCCESS").touch()
    assert _events(_description(events=tmp_path)) == EVENTS
    assert _events(_description(events=tmp_path / "day=*" / "*.gz")) == EVENTS


def test_any_file_system_of_fsspec_is_read() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/lake/a.csv", _csv(EVENTS).encode())
    assert _events(_description(events="memory://lake")) == EVENTS


def test_files_whose_headers_differ_are_read_together(tmp_path) -> None:
    for number, row in enumerate(EVENTS):
        (tmp_path / f"{number}.csv").write_text(_csv([row]))
    assert _events(_description(events=tmp_path)) == EVENTS


@pytest.mark.parametrize(
    ("unit", "written"),
    [
        ("ms", 1_700_000_000_000),
        ("s", 1_700_000_000),
        ("s", 1_700_000_000.0),
        ("us", 1_700_000_000_000_000),
        ("ms", "2023-11-14T22:13:20Z"),
        ("s", "2023-11-14 23:13:20+01:00"),
        ("ms", "2023-11-14T22:13:20"),
    ],
)
def test_columns_have_their_own_names_and_times_their_own_spelling(tmp_path, unit, written) -> None:
    row = {"id": 1, "user": 5, "what": "play_stop", "when": written, "asset": "12"}
    columns = {
        "event_id": "id",
        "profile_id": "user",
        "event_type": "what",
        "occurred_at_ms": "when",
        "title_id": "asset",
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (tmp_path / "a.csv").write_text(_csv([row]))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        told = {"path": str(tmp_path / name), "columns": columns, "time_unit": unit}
        assert _events(_description(events=told)) == [
            {
                "event_id": "1",
                "profile_id": "5",
                "event_type": "play_stop",
                "occurred_at_ms": 1_700_000_000_000,
                "title_id": "12",
            }
        ], name


def test_timestamps_of_parquet_say_their_unit_themselves(tmp_path) -> None:
    row = EVENTS[1] | {"occurred_at_ms": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)}
    for unit in ("s", "ms", "us", "ns"):
        for zone in (None, "UTC"):
            table = pa.Table.from_pylist([row])
            times = table["occurred_at_ms"].cast(pa.timestamp(unit, zone))
            pq.write_table(table.set_column(3, "occurred_at_ms", times), tmp_path / "a.parquet")
            (read,) = _events(_description(events=tmp_path / "a.parquet"))
            assert read["occurred_at_ms"] == 1_700_000_000_000


def test_records_that_are_no_events_are_left_out(tmp_path) -> None:
    broken = [EVENTS[0] | {name: None} for name in ("event_id", "profile_id", "event_type")]
    broken.append(EVENTS[0] | {"occurred_at_ms": "yesterday"})
    lines = [json.dumps(row) for row in [*EVENTS, *broken]]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{half", ""]))
    assert _events(_description(events=tmp_path)) == EVENTS


def test_what_is_excluded_does_not_come(tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in EVENTS))
    titles = tmp_path / "titles.csv"
    titles.write_text("title_id,kind\n12,Clip\n13,Movie\n")
    ann, bob = EVENTS
    for exclude, left in [
        ({"profiles": ["ann"]}, [bob]),
        ({"titles": ["12"]}, [bob]),
        ({"kinds": ["clip"]}, [bob]),
        ({"after": "2023-11-14T22:13:21Z"}, [ann]),
        ({"before": "2023-11-14T22:13:21Z"}, [bob]),
    ]:
        told = _description(
            titles,
            tmp_path / "a.jsonl",
            exclude=exclude,
            labels={"kinds": {"aliases": {"Clip": "clip"}}},
        )
        assert _events(told) == left, exclude
    assert read_catalogue_files(told)["title_id"].to_pylist() == ["12", "13"]
    told = _description(titles, exclude={"kinds": ["Clip"]})
    assert read_catalogue_files(told)["title_id"].to_pylist() == ["13"]


def test_a_catalogue_is_the_same_from_every_format_and_spelling(tmp_path) -> None:
    day = date(1999, 3, 31)
    rows = [
        {"id": "07", "t": "The Matrix", "type": "film", "g": ["Sci-Fi", "SF", "Action"], "d": day},
        {"id": "8", "t": None, "type": None, "g": [], "d": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    texts = [row | {"d": row["d"] and row["d"].isoformat()} for row in rows]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    (tmp_path / "a.csv").write_text(
        "id,t,type,g,d\n07,The Matrix,film,Sci-Fi| SF|Action,1999-03-31\n8,,,,\n"
    )
    (tmp_path / "b.csv").write_text(
        'id,t,type,g,d\n07,The Matrix,film,"[""Sci-Fi"",""SF"",""Action""]",10681\n8,,,[],\n'
    )
    for name in ("a.parquet", "a.jsonl", "a.csv", "b.csv"):
        columns = {"title_id": "id", "name": "t", "kind": "type", "genres": "g", "release_day": "d"}
        told = {"path": str(tmp_path / name), "columns": columns, "genres_separator": "|"}
        aliases = {
            "kinds": {"aliases": {"film": "movie"}},
            "genres": {"aliases": {"Sci-Fi": "sci-fi", "SF": "sci-fi"}},
        }
        read = read_catalogue_files(_description(told, labels=aliases))
        assert read.schema == CATALOGUE_SCHEMA
        assert read.select(range(5)).to_pylist() == [
            {
                "title_id": "07",
                "name": "The Matrix",
                "kind": "movie",
                "genres": ["sci-fi", "Action"],
                "release_day": 10681,
            },
            {"title_id": "8", "name": "8", "kind": None, "genres": [], "release_day": None},
        ], name


def test_a_release_year_is_its_first_day_and_minutes_are_seconds(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("title_id,year,length\n1,1971,90\n2,1969-1970,\n3,soon,x\n")
    columns = {"release_year": "year", "duration_min": "length"}
    read = read_catalogue_files(_description({"path": str(tmp_path / "a.csv"), "columns": columns}))
    assert read["release_day"].to_pylist() == [365, -365, None]
    assert read["duration_s"].to_pylist() == [5400, None, None]


def test_of_an_id_that_repeats_the_first_title_is_kept_and_a_title_without_id_is_not(
    tmp_path,
) -> None:
    (tmp_path / "a.csv").write_text("title_id,name\n1,one\n,none\n1,uno\n")
    assert read_catalogue_files(_description(tmp_path / "a.csv"))["name"].to_pylist() == ["one"]


def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("id,name\n1,one\n")
    with pytest.raises(DataUnusableError, match=r"catalogue.columns.title_id.* of id, name$"):
        read_catalogue_files(_description(tmp_path / "a.csv"))
    with pytest.raises(DataUnusableError, match=r"columns.event_id.*columns.profile_id.* id, name"):
        list(event_batches(_description(events=tmp_path / "a.csv")))


def test_files_that_are_not_there_or_of_no_one_format_are_told(tmp_path) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "export").touch()
    with pytest.raises(DataUnusableError, match="no files at"):
        find_files([str(tmp_path / "b*")])
    with pytest.raises(DataUnusableError, match="not of one format"):
        find_files([str(tmp_path)])
    with pytest.raises(DataUnusableError, match="set `format`"):
        find_files([str(tmp_path / "export")])
    assert find_files([str(tmp_path / "export")], "csv").format == "csv"
    with pytest.raises(DataUnusableError, match="looked up"):
        find_files(["nowhere://bucket"])


def test_an_adapter_that_is_not_known_is_refused(tmp_path) -> None:
    with pytest.raises(ValidationError, match="no such adapter"):
        _description(events={"path": str(tmp_path), "adapter": "vhs"})


def test_records_of_another_s_come_through_their_adapter(tmp_path) -> None:
    (tmp_path / "a.csv").write_text(
        "Profile Name,Start Time,Duration,Attributes,Title,Supplemental Video Type,Device Type,"
        "Bookmark,Latest Bookmark,Country\n"
        "Ann,2024-01-02 03:04:05,00:10:00,,Heat,,TV,00:10:00,Not latest view,NO (Norway)\n"
    )
    told = _description(events={"path": str(tmp_path), "adapter": "netflix"})
    events = _events(told)
    assert {one["country"] for one in events} == {"NO"}
    assert max(one.get("watched_s", 0) for one in events) == 600
    assert (
        _events(_description(events=told.events.model_dump(), exclude={"profiles": ["Ann"]})) == []
    )
