import json
import re
from pathlib import Path

import pytest

from fm_intent.data.description import (
    SourceDescription,
    dump_description,
    json_schema,
    parse_description,
    read_description,
)
from fm_intent.data.faults import BY_NAME as FAULTS
from stream.exceptions import DescriptionError
from tests.checkout import REPOSITORY

LEAST = """\
name: sofa
events:
  path: events
catalogue:
  path: [titles.csv, "s3://bucket/more/*.csv"]
"""


def test_the_least_that_a_description_says_is_where_events_and_catalogue_are(tmp_path) -> None:
    file = tmp_path / "source.yaml"
    file.write_text(LEAST)
    found = read_description(file)
    assert found.events.path == (str(tmp_path / "events"),)
    assert found.catalogue.path == (str(tmp_path / "titles.csv"), "s3://bucket/more/*.csv")
    assert found.training.split == "global-time"


def test_scalars_stay_what_was_written_where_text_is_wanted() -> None:
    found = parse_description(
        LEAST
        + "exclude: {profiles: [007, 1e3], titles: [null-island, no]}\n"
        + "groups: {norway: {country: NO}}\n"
        + "labels: {genres: {fixed: [on, 2001-01-01]}, kinds: {fixed: null}}\n",
        "x",
    )
    assert found.exclude.profiles == ("007", "1e3")
    assert found.exclude.titles == ("null-island", "no")
    assert found.groups["norway"].country == "NO"
    assert found.labels.genres.fixed == ("on", "2001-01-01")
    assert found.labels.kinds.fixed is None


def test_a_time_without_a_zone_is_utc() -> None:
    found = parse_description(LEAST + "exclude: {before: 2024-01-02, after: 2024-01-03T02:00}", "x")
    assert found.exclude.from_ms == 1_704_153_600_000
    assert found.exclude.until_ms == 1_704_247_200_000


@pytest.mark.parametrize(
    ("adapter", "told"),
    [
        ("segmnt", "x:2: events.adapter: there is no such adapter; did you mean segment?"),
        ("snowplow", "x:2: events.options: options of the adapter snowplow: title_entity"),
    ],
)
def test_an_adapter_or_an_option_that_is_none_is_told_among_the_other_complaints(
    adapter: str, told: str
) -> None:
    text = f"name: A B\nevents: {{path: e, adapter: {adapter}, options: {{a: 1}}}}\n"
    with pytest.raises(DescriptionError) as raised:
        parse_description(f"{text}catalogue: {{path: t, date_format: dd.mm.yyyy}}\n", "x")
    complaints = str(raised.value).splitlines()
    assert len(complaints) == 3
    assert complaints[1].startswith(told)
    assert "%d.%m.%Y" in complaints[2]


def test_every_complaint_names_file_line_and_key_at_once() -> None:
    text = """\
name: A Sofa
events:
  path: []
  fromat: csv
catalogue:
  columns: {titel_id: id}
labels:
  genres:
    minimum_share: 7
    minimum_share: 0.1
groups:
  kids: {profiles_matching: "(", country: NO}
  odd: {profiles_matching: "("}
training:
  split: global
"""
    with pytest.raises(DescriptionError) as error:
        parse_description(text, "my.yaml")
    told = str(error.value).splitlines()
    assert [line.split(": ")[:2] for line in told] == [
        ["my.yaml:1", "name"],
        ["my.yaml:3", "events.path"],
        ["my.yaml:4", "events.fromat"],
        ["my.yaml:5", "catalogue.path"],
        ["my.yaml:6", "catalogue.columns.titel_id"],
        ["my.yaml:10", "labels.genres.minimum_share"],
        ["my.yaml:12", "groups.kids"],
        ["my.yaml:13", "groups.odd"],
        ["my.yaml:15", "training.split"],
    ]
    assert "did you mean format?" in told[2]
    assert "is missing; add it" in told[3]
    assert "did you mean title_id?" in told[4]
    assert "twice" in told[5]
    assert "not by profiles_matching and country" in told[6]
    assert "did you mean global-time?" in told[8]


def test_an_alias_of_an_alias_is_refused() -> None:
    with pytest.raises(DescriptionError, match=r"yaml:7: labels\.genres: aliases: a stands for b"):
        parse_description(LEAST + "labels:\n  genres: {aliases: {a: b, b: c, d: d}}\n", "my.yaml")


@pytest.mark.parametrize("text", ["name: [", "- a", "", "a: b: c"])
def test_what_is_no_mapping_of_keys_is_refused_with_its_line(text) -> None:
    with pytest.raises(DescriptionError, match=r"my.yaml:\d"):
        parse_description(text, "my.yaml")


def test_a_missing_file_is_refused_with_the_command_that_writes_one(tmp_path) -> None:
    with pytest.raises(DescriptionError, match="data init"):
        read_description(tmp_path / "source.yaml")


def test_a_description_that_was_written_is_read_as_it_was() -> None:
    found = parse_description(LEAST + "exclude: {before: 2024-01-02}\ntraining: {epochs: 3}\n", "x")
    assert parse_description(dump_description(found), "y") == found


def test_every_key_is_explained() -> None:
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]
    untold = [
        (section["title"], key)
        for section in sections
        for key, value in section["properties"].items()
        if "description" not in value and "$ref" not in value
    ]
    assert untold == []


def test_the_schema_in_the_documentation_is_that_of_the_code() -> None:
    kept = json.loads((REPOSITORY / "docs" / "source.schema.json").read_text())
    assert kept == json_schema(), "run `intentstream data schema > docs/source.schema.json`"


def test_paths_of_a_home_are_found() -> None:
    found = parse_description(LEAST.replace("events\n", "~/events\n"), "x", Path("/data"))
    assert found.events.path == (str(Path.home() / "events"),)
    assert isinstance(found, SourceDescription)


def test_the_page_tells_every_key_and_every_kind_of_fault_with_its_thresholds() -> None:
    page = (REPOSITORY / "docs" / "source-yaml.md").read_text()
    schema = json_schema()
    keys = {key for section in [schema, *schema["$defs"].values()] for key in section["properties"]}
    told = {part for key in re.findall(r"(?m)^\| `([\w.]+)`", page) for part in key.split(".")}
    assert keys - told == set()
    for fault in FAULTS.values():
        limits = ("" if one is None else f"{one:g}" for one in (fault.warn, fault.fail))
        row = " | ".join((f"| `{fault.name}`", fault.about, fault.what, fault.of, *limits))
        assert row in page, fault.name
