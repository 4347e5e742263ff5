import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fm_intent.data.check_page import page
from fm_intent.data.checking import Check, check
from fm_intent.data.description import SourceDescription, parse_description
from fm_intent.data.faults import BY_NAME
from stream.exceptions import DescriptionError

START = 1_700_000_000_000
NOW = START + 40 * 86_400_000


def _sound() -> list[dict]:
    """Twenty days of sixty profiles, who watch half of a film each day, and a search."""
    events = []
    for profile in range(60):
        for day in range(20):
            at = START + day * 86_400_000 + profile * 1_000
            sitting = {"profile_id": f"p{profile}", "title_id": f"t{(profile + day) % 40}"}
            sitting |= {"playback_id": f"s{profile}-{day}", "device": "tv"}
            for step, kind in enumerate(("play_start", "play_progress", "play_stop")):
                events.append(
                    sitting
                    | {"event_id": f"e{profile}-{day}-{step}", "event_type": kind}
                    | {"occurred_at_ms": at + step * 900_000, "watched_s": step * 900.0}
                )
    return events


def _titles() -> list[dict]:
    genres = ("drama", "comedy")
    return [
        {"title_id": f"t{n}", "name": f"Film {n}", "kind": "movie", "genres": [genres[n % 2]]}
        | {"release_day": 10_000 + n, "duration_s": 3600}
        for n in range(40)
    ]


def _lines(path: Path, rows: list) -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def _check(folder: Path, records: list, titles: list | None = None, **other) -> Check:
    told = {
        "name": "x",
        "events": {"path": _lines(folder / "events.jsonl", records)},
        "catalogue": {"path": _lines(folder / "titles.jsonl", titles or _titles())},
    }
    return check(SourceDescription.model_validate(told | other), now_ms=NOW)


def _counts(found: Check) -> dict[str, int]:
    return {one.fault.name: one.count for one in found.findings if one.count}


def _with(*changes: dict) -> list:
    """Sound events, and one changed copy of the first for each change."""
    events = _sound()
    fresh = ({"event_id": f"more{n}", "playback_id": f"more{n}"} for n in range(len(changes)))
    return events + [events[1] | new | one for new, one in zip(fresh, changes, strict=True)]


def test_sound_data_have_no_fault(tmp_path) -> None:
    found = _check(tmp_path, _sound())
    assert {name: n for name, n in _counts(found).items() if name != "plays_concentrated"} == {}
    assert found.level == "ok"
    assert found.sizes == {
        "titles": 40,
        "records": 3600,
        "sittings": 1200,
        "profiles": 60,
        "genres": 2,
        "kinds": 1,
        "devices": 1,
    }


def test_every_kind_of_damage_is_named_at_once_with_its_records(tmp_path) -> None:
    sound = _sound()
    day = 86_400_000
    events = _with(
        {"event_type": "play_backwards"},
        {"profile_id": None},
        {"event_id": "x" * 257},
        {"occurred_at_ms": "yesterday"},
        {"occurred_at_ms": 1 << 60},
        {"occurred_at_ms": 86_400},
        {"occurred_at_ms": NOW + day},
        {"title_id": "nobody knows"},
        {"watched_s": -1},
        {"watched_s": 9000.0},
        {"device": None},
        {"season": "S02"},
        {"playback_id": "s5-5"},
        {"playback_id": "s0-0", "season": 1, "episode": 2},
        {"playback_id": "s0-1", "title_id": "t1", "occurred_at_ms": START + 5 * day}
        | {"watched_s": 1800.0},
    )
    events += [sound[0], sound[3] | {"title_id": "t9"}, "{half a line"]
    at = START + 30 * day
    jump = {"playback_id": "jump", "profile_id": "p1"}
    for n, (after, watched) in enumerate([(0, 900.0), (1_000, 1_800.0), (2_000, 600.0)]):
        events.append(
            sound[1]
            | jump
            | {"event_id": f"jump{n}", "occurred_at_ms": at + after, "watched_s": watched}
        )
    titles = _titles()
    titles += [titles[0], {"name": "no id"}, {"title_id": "t40", "genres": ["Drama"], "kind": "x"}]
    titles[1] |= {"release_day": 90_000, "kind": None}
    labels = {"kinds": {"minimum_share": 0.1}}
    found = _check(tmp_path, events, titles, labels=labels)
    assert _counts(found) | {"plays_concentrated": 0} == {
        "line_unreadable": 1,
        "type_unknown": 1,
        "field_missing": 1,
        "id_too_long": 1,
        "event_repeats": 1,
        "event_id_reused": 1,
        "time_unreadable": 1,
        "time_out_of_range": 1,
        "time_before_1990": 1,
        "time_in_future": 1,
        "clock_jumps": 1,
        "title_unknown": 1,
        "title_id_missing": 1,
        "title_repeats": 1,
        "release_out_of_range": 1,
        "release_missing": 1,
        "kind_missing": 1,
        "kind_folded": 1,
        "labels_alike": 1,
        "device_missing": 1,
        "episode_in_part": 1,
        "sitting_too_long": 1,
        "playback_shared": 1,
        "share_unknown": 2,
        "watched_over_duration": 1,
        "watched_falls": 1,
        "number_unreadable": 1,
        "number_out_of_range": 1,
        "title_never_played": 1,
        "plays_concentrated": 0,
    }
    shown = {one.fault.name: one.examples for one in found.findings}
    assert shown["type_unknown"][0]["event_type"] == "play_backwards"
    assert shown["time_unreadable"][0]["time_text"] == "yesterday"
    assert shown["number_unreadable"][0]["number_text"] == "season: S02"
    assert shown["time_in_future"][0]["occurred_at_ms"] == NOW + day
    assert shown["sitting_too_long"][0]["hours"] > 24
    assert shown["labels_alike"] == ({"paste": 'labels.genres.aliases: {"Drama": "drama"}'},)
    assert shown["kind_folded"] == ({"label": "x", "titles": 1},)
    assert shown["title_repeats"] == ({"title_id": "t0", "name": "Film 0", "row": 41},)
    assert shown["clock_jumps"][0]["event_id"] == "jump1"
    assert shown["watched_falls"][0]["event_id"] == "jump2"


def test_lines_of_csv_that_are_none_are_counted_and_shown(tmp_path) -> None:
    names = list(_sound()[0])
    rows = [",".join(str(event[name]) for name in names) for event in _sound()[:30]]
    file = tmp_path / "events.csv"
    file.write_text("\n".join([",".join(names), *rows, "1,2", '"open', ""]))
    found = _check(tmp_path, [], events={"path": str(file)})
    unreadable = next(one for one in found.findings if one.fault.name == "line_unreadable")
    assert unreadable.count == 2
    assert unreadable.examples[0]["line"] == 32
    assert unreadable.examples[0]["text"].strip() == "1,2"


def test_what_an_adapter_refuses_is_counted_by_reason(tmp_path) -> None:
    (tmp_path / "a.csv").write_text(
        "Profile Name,Start Time,Duration,Attributes,Title,Supplemental Video Type,Device Type,"
        "Bookmark,Latest Bookmark,Country\n"
        "Ann,2023-11-14 03:04:05,00:10:00,,Heat,,TV,00:10:00,Not latest view,NO (Norway)\n"
        "Ann,some day,00:10:00,,Heat,,TV,00:10:00,Not latest view,NO (Norway)\n"
    )
    found = _check(tmp_path, [], events={"path": str(tmp_path / "a.csv"), "adapter": "netflix"})
    refused = next(one for one in found.findings if one.fault.name == "record_refused")
    assert refused.count == 1
    assert refused.examples[0]["records"] == 1
    assert found.sizes["sittings"] == 1


def test_what_is_no_record_before_any_adapter_reads_it_is_told_apart(tmp_path) -> None:
    whole = {"messageId": "1", "event": "Video Ad Playing", "userId": "ann", "properties": {}}
    timeless = {**whole, "event": "Video Content Started"}
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join([json.dumps(whole), json.dumps(timeless), '{"messageId": "3", "ev']))
    found = _check(tmp_path, [], events={"path": str(file), "adapter": "segment"})
    told = {one.fault.name: one for one in found.findings}
    assert (told["line_unreadable"].count, told["record_refused"].count) == (1, 1)
    (example,) = told["line_unreadable"].examples
    assert (example["filename"], example["line"], example["text"]) == (
        str(file),
        3,
        '{"messageId": "3", "ev',
    )


def test_too_little_history_is_told_for_every_part(tmp_path) -> None:
    few = [event for event in _sound() if event["profile_id"] in ("p1", "p2")][:12]
    found = {one.fault.name: one for one in _check(tmp_path, few).findings}
    for name in ("days_missing", "profiles_missing", "validation_missing", "test_missing"):
        assert found[name].level != "ok", name
    assert found["profiles_missing"].level == "error"
    assert found["profiles_missing"].examples == ({"have": 1, "needed": 50},)


def test_no_events_at_all_are_told_as_too_few(tmp_path) -> None:
    found = _check(tmp_path, [])
    assert found.level == "error"
    assert "profiles_missing" in _counts(found)


def test_gates_override_the_thresholds(tmp_path) -> None:
    events = _with({"event_type": "odd"})
    assert _check(tmp_path, events).level == "warning"
    quiet = {"check": {"type_unknown": {"warn": 0.5}}}
    assert _check(tmp_path, events, gates=quiet).level == "ok"
    strict = {"check": {"type_unknown": {"fail": 0}}}
    assert _check(tmp_path, events, gates=strict).level == "error"


def test_a_gate_of_no_known_fault_is_refused_with_the_one_that_is_meant() -> None:
    text = "name: x\nevents: {path: a}\ncatalogue: {path: b}\ngates: {check: {type_unknwon: {}}}\n"
    with pytest.raises(DescriptionError, match=r"yaml:4: .*did you mean type_unknown"):
        parse_description(text, "my.yaml")


def test_the_page_is_one_file_with_every_picture_and_escapes_what_data_say(tmp_path) -> None:
    shown = page(_check(tmp_path, _with({"event_type": "<script>alert(1)</script>"})))
    assert shown.count("<svg") == 8
    assert "<script" not in shown
    assert not [sign for sign in ("src=", "<link", "@import", 'href="http') if sign in shown]
    assert "currentColor" in shown
    assert "type_unknown" in shown


def test_json_tells_every_kind_of_fault(tmp_path) -> None:
    told = json.loads(json.dumps(_check(tmp_path, _sound()).as_json()))
    assert [one["name"] for one in told["faults"]] == list(BY_NAME)
    assert told["level"] == "ok"


def _found(found: Check) -> dict:
    return {one.fault.name: one for one in found.findings}


def _parquet(path: Path, rows: list) -> bytes:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path.read_bytes()


def test_files_that_cannot_be_read_are_named_and_all_others_are_checked(tmp_path) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    sound = _with({"event_type": "odd"})
    for number in range(5):
        _parquet(folder / f"{number}.parquet", sound[number::5])
    whole = _parquet(folder / "cut.parquet", sound[:100])
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.parquet").touch()
    told = _found(_check(tmp_path, [], events={"path": str(folder)}))
    (cut,) = told["file_unreadable"].examples
    assert cut["filename"] == str(folder / "cut.parquet")
    assert cut["reason"]
    assert (told["file_unreadable"].level, told["file_unreadable"].of) == ("error", 8)
    (empty,) = told["file_empty"].examples
    assert empty["filename"] == str(folder / "empty.parquet")
    assert told["file_empty"].level == "warning"
    assert (told["type_unknown"].count, told["type_unknown"].of) == (1, len(sound))


def test_of_csv_a_file_of_another_encoding_or_of_mixed_ends_of_lines_spoils_no_other(
    tmp_path,
) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    names = list(_sound()[0])
    rows = [",".join(str(event[name]) for name in names) for event in _sound()[:40]]
    head = ",".join(names)
    (folder / "a.csv").write_text("\n".join([head, *rows[:20]]))
    (folder / "b.csv").write_bytes(f"{head}\n{rows[20]}\r\n{rows[21]}\n".encode())
    (folder / "c.csv").write_text("\n".join([f"Gerät,{head}", *rows[22:]]), encoding="latin-1")
    latin = rows[23].replace("tv", "Fernseh\xe4r")
    (folder / "d.csv").write_text("\n".join([head, latin, rows[24]]), encoding="latin-1")
    (folder / "e.csv").write_text(f"{head}\n")
    found = _check(tmp_path, [], events={"path": str(folder)})
    told = _found(found)
    reasons = {one["filename"][-5:]: one["reason"] for one in told["file_unreadable"].examples}
    assert reasons.keys() == {"b.csv", "c.csv"}
    assert "mixed" in reasons["b.csv"]
    assert "utf-8" in reasons["c.csv"]
    assert [one["filename"][-5:] for one in told["file_empty"].examples] == ["e.csv"]
    (line,) = told["line_unreadable"].examples
    assert (line["filename"][-5:], line["line"]) == ("d.csv", 2)
    assert "utf-8" in line["detail"]
    assert (told["line_unreadable"].count, found.sizes["records"]) == (1, 21)


def test_an_unreadable_file_before_an_adapter_costs_that_file_alone(tmp_path) -> None:
    call = {"messageId": "1", "event": "Video Content Started", "userId": "ann"}
    call |= {"timestamp": "2023-11-15T00:00:00Z"}
    call["properties"] = {"session_id": "s", "asset_id": "t1", "position": 0}
    folder = tmp_path / "calls"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps(call))
    packed = gzip.compress(random.Random(1).randbytes(5000).hex().encode())
    (folder / "b.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "c.jsonl").touch()
    found = _check(tmp_path, [], events={"path": str(folder), "adapter": "segment"})
    told = _found(found)
    assert [one["filename"][-4:] for one in told["file_unreadable"].examples] == ["l.gz"]
    assert [one["filename"][-7:] for one in told["file_empty"].examples] == ["c.jsonl"]
    assert found.sizes["records"] == 1


def test_a_catalogue_of_unreadable_files_and_lines_is_told_beside_its_events(tmp_path) -> None:
    folder = tmp_path / "titles"
    folder.mkdir()
    (folder / "a.csv").write_text("title_id,name\nt1,Sch\xf6n\nt2,Heat\n", encoding="latin-1")
    (folder / "b.csv").write_text("id\xe4,name\nt3,x\n", encoding="latin-1")
    told = _found(_check(tmp_path, _sound(), catalogue={"path": str(folder)}))
    (line,) = told["title_unreadable"].examples
    assert (line["filename"], line["line"]) == (str(folder / "a.csv"), 2)
    assert [one["filename"][-5:] for one in told["file_unreadable"].examples] == ["b.csv"]
    assert told["title_unknown"].count > 0


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_all_columns_that_no_file_has_are_told_at_once_in_every_format(tmp_path, form) -> None:
    rows = [{**event, "id": event["event_id"]} for event in _sound()[:30]]
    rows = [{key: one for key, one in row.items() if key != "event_id"} for row in rows]
    file = tmp_path / f"e.{form}"
    if form == "parquet":
        _parquet(file, rows)
    elif form == "jsonl":
        _lines(file, rows)
    else:
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        file.write_text("\n".join(lines))
    events = {"path": str(file), "columns": {"device": "Gerät", "watched_s": "watched_s"}}
    catalogue = {"path": _lines(tmp_path / "t.jsonl", _titles()), "columns": {"kind": "knd"}}
    told = _found(_check(tmp_path, [], events=events, catalogue=catalogue))["column_missing"]
    assert (told.level, told.count) == ("error", 3)
    of_catalogue, of_events = told.examples
    assert of_events["missing"] == "events.columns.event_id: event_id, events.columns.device: Gerät"
    assert of_events["there"].split(", ") == sorted(rows[0])
    assert of_catalogue["missing"] == "catalogue.columns.kind: knd"


def test_no_events_and_no_titles_are_faults_that_say_so(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("title_id,name\n")
    told = _found(_check(tmp_path, [], catalogue={"path": str(tmp_path / "t.csv")}))
    assert (told["events_missing"].level, told["titles_missing"].level) == ("error", "error")
    told = _found(_check(tmp_path, _sound()))
    assert (told["events_missing"].count, told["titles_missing"].count) == (0, 0)


def test_dates_and_lengths_that_cannot_be_read_are_shown_and_not_called_missing(tmp_path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(
        "title_id,name,release_day,duration_s\n"
        "t1,a,06.01.2022,90 min\nt2,b,2022-01-06,-5\nt3,c,,\nt4,d,25.12.2021,\n"
    )
    told = _found(_check(tmp_path, _sound(), catalogue={"path": str(file)}))
    assert [one["day_text"] for one in told["release_unreadable"].examples] == [
        "release_day: 06.01.2022",
        "release_day: 25.12.2021",
    ]
    assert told["release_missing"].count == 1
    (length,) = told["length_unreadable"].examples
    assert length["length_text"] == "duration_s: 90 min"
    (negative,) = told["length_out_of_range"].examples
    assert (negative["title_id"], negative["duration_s"]) == ("t2", -5)
    german = {"path": str(file), "date_format": "%d.%m.%Y"}
    told = _found(_check(tmp_path, _sound(), catalogue=german))
    assert [one["title_id"] for one in told["release_unreadable"].examples] == ["t2"]


def test_a_line_of_json_that_is_none_is_told_with_its_file_and_number(tmp_path) -> None:
    lines = [*_sound()[:3], "", "{half", json.dumps({"other": 1}), "[1]", _sound()[3]]
    told = _found(_check(tmp_path, lines))["line_unreadable"]
    assert told.count == 3
    assert {one["filename"] for one in told.examples} == {str(tmp_path / "events.jsonl")}
    shown = [(one["line"], one["text"]) for one in told.examples]
    assert shown == [(5, "{half"), (6, '{"other": 1}'), (7, "[1]")]


def test_spellings_that_are_alike_are_told_as_the_aliases_to_paste(tmp_path) -> None:
    titles = _titles()
    for title, genre in zip(titles, ["Krimi", "krimi", "KRIMI", "Krimi"], strict=False):
        title["genres"] = [genre]
    (told,) = _found(_check(tmp_path, _sound(), titles))["labels_alike"].examples
    section, _, aliases = told["paste"].partition(": ")
    assert (section, json.loads(aliases)) == (
        "labels.genres.aliases",
        {"KRIMI": "Krimi", "krimi": "Krimi"},
    )


def test_ids_with_blanks_around_them_are_a_warning(tmp_path) -> None:
    told = _found(_check(tmp_path, _with({"profile_id": "p1 "}, {"title_id": "\tt1"})))
    assert (told["id_padded"].count, told["id_padded"].level) == (2, "warning")
    assert told["id_padded"].examples[0]["profile_id"] == "p1 "


def test_where_no_file_can_be_read_its_reason_is_told_and_no_column_is_missed(tmp_path) -> None:
    (tmp_path / "e.parquet").write_bytes(b"PAR1x")
    told = _found(_check(tmp_path, [], events={"path": str(tmp_path / "e.parquet")}))
    (example,) = told["file_unreadable"].examples
    assert "too small" in example["reason"]
    assert "SELECT" not in example["reason"]
    assert told["column_missing"].count == 0
