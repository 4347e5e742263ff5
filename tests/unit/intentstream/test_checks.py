import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from intentstream.cli.main import app
from stream.exceptions import DescriptionError

EVENTS = "event_id,profile_id,event_type,occurred_at_ms,title_id,playback_id\n"


@pytest.fixture
def source(tmp_path) -> Path:
    """A source of one play, which is too little."""
    (tmp_path / "events.csv").write_text(EVENTS + "e1,ann,play_complete,1700000000000,t1,s1\n")
    (tmp_path / "titles.csv").write_text("title_id,name,genres\nt1,Heat,crime\n")
    file = tmp_path / "source.yaml"
    file.write_text("name: tiny\nevents: {path: events.csv}\ncatalogue: {path: titles.csv}\n")
    return file


def _run(*arguments: object):
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


def test_errors_end_it_with_2_and_are_told_with_what_to_do(source) -> None:
    done = _run(source)
    assert done.exit_code == 2
    assert "profiles_missing" in done.output
    assert "Read more days" in done.output


def test_json_is_all_that_a_program_gets(source) -> None:
    done = _run(source, "--json")
    assert done.exit_code == 2
    told = json.loads(done.stdout)
    assert (told["source"], told["level"], told["records"]) == ("tiny", "error", 1)


def test_the_exit_code_follows_the_gates(source) -> None:
    every = {one["name"]: {} for one in json.loads(_run(source, "--json").stdout)["faults"]}
    file = source.with_name("lenient.yaml")
    file.write_text(source.read_text() + f"gates: {json.dumps({'check': every})}\n")
    assert _run(file).exit_code == 0
    every["days_missing"] = {"warn": 0}
    file.write_text(source.read_text() + f"gates: {json.dumps({'check': every})}\n")
    assert _run(file).exit_code == 1


def test_the_page_is_written_where_it_is_asked_for(source, tmp_path) -> None:
    _run(source, "--page", tmp_path / "check.html")
    assert "<title>Check of tiny</title>" in (tmp_path / "check.html").read_text()


def test_what_can_t_be_checked_ends_it_with_2_and_every_complaint(source) -> None:
    source.write_text(
        "name: tiny\nevents: {path: nothing, adapter: segmnt}\ncatalog: {path: titles.csv}\n"
    )
    done = _run(source, "--json")
    assert done.exit_code == 2
    told = json.loads(done.stdout)
    assert (told["level"], told["error"]) == ("error", "DescriptionError")
    for complaint in ("did you mean catalogue", "did you mean segment"):
        assert complaint in done.stderr
        assert any(complaint in one for one in told["complaints"])


def test_a_description_is_written_once_and_then_only_by_force(source, tmp_path) -> None:
    command = ["data", "init", str(tmp_path / "events.csv"), str(tmp_path / "titles.csv")]
    into = ["--into", str(tmp_path / "new.yaml")]
    done = CliRunner().invoke(app, [*command, *into])
    assert done.exit_code == 0
    assert "events.adapter: intent" in done.output
    assert _run(tmp_path / "new.yaml").exit_code == 2
    again = CliRunner().invoke(app, [*command, *into])
    assert isinstance(again.exception, DescriptionError)
    assert CliRunner().invoke(app, [*command, *into, "--force"]).exit_code == 0


def test_paths_that_name_nothing_are_told_at_once(source) -> None:
    source.write_text("name: tiny\nevents: {path: none.csv}\ncatalogue: {path: nil.csv}\n")
    told = json.loads(_run(source, "--json").stdout)
    assert [one.split(";")[0][-8:] for one in told["complaints"]] == ["none.csv", "/nil.csv"]
