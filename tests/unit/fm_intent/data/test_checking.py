import json
from pathlib import Path

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
        "devices": 2,
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
    assert shown["labels_alike"] == ({"label": "drama", "like": "Drama"},)
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
    assert (example["filename"], example["record"]) == (str(file), 3)


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
