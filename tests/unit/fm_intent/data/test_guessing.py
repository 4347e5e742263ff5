import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fm_intent.data.description import SourceDescription, parse_description
from fm_intent.data.guessing import guess
from fm_intent.data.reading import event_batches, read_catalogue_files
from stream.exceptions import DataUnusableError


def _described(folder: Path, *paths: str) -> SourceDescription:
    told = guess([str(folder / path) for path in paths or ("",)], folder / "source.yaml")
    return parse_description(told.text, "source.yaml", folder)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A service's export: titles as CSV, events as JSON lines by day, of its own names."""
    (tmp_path / "titles.csv").write_text(
        "id,title,type,genre,year,runtime\n"
        "7,Heat,Film,crime;drama,1995,170\n"
        "8,Dark,TV Show,sci-fi;crime;drama,2017,55\n"
    )
    days = tmp_path / "events"
    days.mkdir()
    for day in range(2):
        event = {"id": f"e{day}", "user_id": "ann", "event": "play_stop", "item_id": "7"}
        event |= {"session_id": f"s{day}", "ts": 1_700_000_000 + day, "watch_time": 60}
        (days / f"{day}.jsonl").write_text(json.dumps(event))
    return tmp_path


def test_a_folder_of_a_catalogue_and_events_is_told_apart_and_can_be_read(folder) -> None:
    found = _described(folder)
    assert found.events.adapter == "intent"
    assert found.events.time_unit == "s"
    assert found.catalogue.genres_separator == ";"
    rows = [row for batch in event_batches(found) for row in batch.to_pylist()]
    first = min(rows, key=lambda row: row["event_id"])
    assert {name: value for name, value in first.items() if value is not None} == {
        "event_id": "e0",
        "profile_id": "ann",
        "event_type": "play_stop",
        "occurred_at_ms": 1_700_000_000_000,
        "title_id": "7",
        "playback_id": "s0",
        "watched_s": 60.0,
    }
    assert read_catalogue_files(found).to_pylist()[1] == {
        "title_id": "8",
        "name": "Dark",
        "kind": "show",
        "genres": ["sci-fi", "crime", "drama"],
        "release_day": 17_167,
        "duration_s": 3300.0,
    }


@pytest.mark.parametrize(
    ("beside", "named"), [([], "days"), (["titles.csv"], "days/*.jsonl"), (["note.md"], "days")]
)
def test_of_a_folder_its_name_or_a_glob_stands_for_all_its_files(tmp_path, beside, named) -> None:
    days = tmp_path / "days"
    days.mkdir()
    for day in range(3):
        row = {"event_id": "1", "profile_id": "p", "event_type": "search", "ts": day}
        (days / f"2024-01-0{day}.jsonl").write_text(json.dumps(row))
    for name in beside:
        (days / name).write_text("id,title\n1,Heat\n")
    assert _described(tmp_path, "days").events.path == (str(tmp_path / named),)


def test_files_that_are_named_one_by_one_stay_so(tmp_path) -> None:
    row = {"event_id": "1", "profile_id": "p", "event_type": "search", "ts": 1}
    names = ("a.jsonl", "b.jsonl")
    for name in names:
        (tmp_path / name).write_text(json.dumps(row))
    found = _described(tmp_path, *names)
    assert found.events.path == tuple(str(tmp_path / name) for name in names)


def test_german_names_of_columns_are_known(tmp_path) -> None:
    (tmp_path / "programm.csv").write_text(
        "Nummer;Titel;Art;Kategorie;Jahr;Dauer\n7;Das Boot;Spielfilm;Krieg / Drama;1981;149\n"
    )
    (tmp_path / "abrufe.csv").write_text(
        "ID;Nutzer;Aktion;Datum;Titel;Sitzung;Gerät\n1;ann;play_start;2024-01-02;7;s;TV\n"
    )
    found = _described(tmp_path)
    (title,) = read_catalogue_files(found).to_pylist()
    assert (title["title_id"], title["name"], title["kind"]) == ("7", "Das Boot", "movie")
    assert (title["genres"], title["duration_s"]) == (["Krieg", "Drama"], 149 * 60.0)
    (event,) = [row for batch in event_batches(found) for row in batch.to_pylist()]
    told = ("event_id", "profile_id", "event_type", "title_id", "playback_id", "device")
    assert [event[name] for name in told] == ["1", "ann", "play_start", "7", "s", "TV"]


def test_what_could_not_be_guessed_is_told(folder) -> None:
    told = guess([str(folder / "events")], folder / "source.yaml")
    assert [line.partition(":")[0] for line in told.open] == ["catalogue.path"]
    told = guess([str(folder / "titles.csv")], folder / "source.yaml")
    assert [line.partition(":")[0] for line in told.open] == ["events.path"]


def test_of_a_file_that_looks_like_nothing_the_columns_are_told(folder) -> None:
    (folder / "strange.csv").write_text("foo;bar\n1;2\n")
    told = guess([str(folder / "events"), str(folder / "strange.csv")], folder / "source.yaml")
    assert any("strange.csv has foo, bar" in line for line in told.open)


def test_events_of_another_form_beside_the_others_are_told(tmp_path) -> None:
    row = {"event_id": "1", "profile_id": "p", "event_type": "search", "occurred_at_ms": 10**12}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "old.parquet")
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps(row))
    told = guess([str(tmp_path)], tmp_path / "source.yaml")
    (line,) = (line for line in told.open if "old.parquet" in line)
    assert line.startswith("events.path: ")
    assert "is left out" in line


def test_our_own_files_need_no_columns(tmp_path) -> None:
    row = {"event_id": "1", "profile_id": "p", "event_type": "search", "occurred_at_ms": 10**12}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "events.parquet")
    title = {"title_id": "1", "name": "x", "genres": ["a"], "kind": "movie"}
    pq.write_table(pa.Table.from_pylist([title]), tmp_path / "catalogue.parquet")
    found = _described(tmp_path)
    assert (found.events.columns, found.catalogue.columns) == ({}, {})
    assert found.events.path == (str(tmp_path / "events.parquet"),)
    assert found.catalogue.genres_separator is None


@pytest.mark.parametrize(
    ("adapter", "record"),
    [
        ("segment", {"messageId": "1", "event": "Video Content Started", "properties": {}}),
        ("snowplow", {"event_id": "1", "derived_tstamp": "2024-01-01"}),
        ("cloudevents", {"specversion": "1.0", "id": "1", "source": "x", "type": "y"}),
        ("jellyfin-webhook", {"NotificationType": "PlaybackStart", "ItemId": "1"}),
        ("tautulli", {"reference_id": 1, "rating_key": 2}),
        ("trakt", {"id": 1, "watched_at": "2024-01-01", "action": "watch", "type": "movie"}),
    ],
)
def test_whose_records_they_are_is_told_by_their_fields(tmp_path, adapter, record) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    assert _described(tmp_path, "a.jsonl").events.adapter == adapter


def test_exports_as_tables_are_told_with_and_without_a_header(tmp_path) -> None:
    (tmp_path / "ViewingActivity.csv").write_text(
        "Profile Name,Start Time,Duration,Attributes,Title,Supplemental Video Type,Device Type,"
        "Bookmark,Latest Bookmark,Country\nAnn,2024-01-02 03:04:05,00:10:00,,Heat,,TV,,,NO\n"
    )
    (tmp_path / "report.tsv").write_text(
        "2024-01-02 03:04:05.1\tu\ti\tMovie\tHeat\tDirectPlay\tWeb\tFirefox\t60\n" * 2
    )
    assert _described(tmp_path, "ViewingActivity.csv").events.adapter == "netflix"
    assert _described(tmp_path, "report.tsv").events.adapter == "jellyfin-reports"


def test_a_folder_of_partitions_is_one_table(tmp_path) -> None:
    row = {"event_id": "1", "profile_id": "p", "event_type": "search", "occurred_at_ms": 10**12}
    for day in ("day=2024-01-01", "day=2024-01-02"):
        (tmp_path / "lake" / day).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "lake" / day / "0.parquet")
    assert _described(tmp_path, "lake").events.path == (str(tmp_path / "lake"),)


def test_files_that_tell_nothing_are_refused_with_their_columns(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataUnusableError, match="columns x, y"):
        guess([str(tmp_path)], tmp_path / "source.yaml")


@pytest.mark.parametrize(
    "heads",
    [
        "Titelnummer;Titel;Genre;Laufzeit_Min;Erscheinungsdatum",
        "ID Título;Título;Género;Duración (min);Fecha Estreno",
        "numero_film;Titre;Catégorie;Durée-min;Date sortie",
        "contentId;Title;Genres;Runtime Minutes;Release Date",
    ],
)
def test_headers_of_four_languages_are_known_by_their_words(tmp_path, heads) -> None:
    (tmp_path / "titel.csv").write_text(f"{heads}\n7;Das Boot;Krieg;149;17.09.1981\n")
    found = _described(tmp_path, "titel.csv").catalogue
    assert list(found.columns.values()) == [heads.split(";")[place] for place in (0, 1, 2, 4, 3)]
    assert found.columns.keys() == {"title_id", "name", "genres", "release_day", "duration_min"}
    assert found.date_format == "%d.%m.%Y"


def test_dates_with_the_day_first_are_told_by_those_that_can_be_nothing_else(tmp_path) -> None:
    file, into = tmp_path / "t.csv", tmp_path / "source.yaml"
    file.write_text("id,title,release_date\n1,a,06/01/2022\n2,b,25/12/2021\n")
    found = _described(tmp_path, "t.csv")
    assert found.catalogue.date_format == "%d/%m/%Y"
    assert read_catalogue_files(found)["release_day"].to_pylist() == [18_998, 18_986]
    file.write_text("id,title,release_date\n1,a,06/01/2022\n")
    assert "date_format" not in _described(tmp_path, "t.csv").catalogue.model_fields_set
    assert any("%d/%m/%Y or %m/%d/%Y" in line for line in guess([str(file)], into).open)
    file.write_text("id,title,release_date\n1,a,2022-01-06\n")
    assert not any("date_format" in line for line in guess([str(file)], into).open)


def test_a_file_that_cannot_be_read_is_left_out_and_told(folder) -> None:
    (folder / "old.parquet").write_bytes(b"PAR1 half of it")
    told = guess([str(folder)], folder / "source.yaml")
    (line,) = (line for line in told.open if "old.parquet" in line)
    assert "is left out" in line
    assert parse_description(told.text, "x", folder).events.columns["profile_id"] == "user_id"


def test_files_that_are_empty_or_cut_short_before_sound_ones_hide_nothing(folder) -> None:
    (folder / "events" / "!.jsonl").touch()
    (folder / "events" / "#.jsonl.gz").write_bytes(b"\x1f\x8b half")
    assert _described(folder).events.columns["profile_id"] == "user_id"
