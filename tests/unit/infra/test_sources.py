import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infra.sources import contract, movielens, movietweetings, netflix, prepare
from infra.sources.exceptions import (
    ArchiveUnavailableError,
    UnexpectedDataError,
    UnknownSourceError,
)
from infra.sources.ratings import events_from_ratings, release_days
from stream.taxonomy import GENRES


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
        (_catalogue("t1", "t1"), _ratings(), "title ids repeat"),
        (_catalogue("t1", "t2"), _ratings(), "not in the catalogue"),
        (_catalogue("t1", "t2", "t3"), pa.concat_tables([_ratings(), _ratings()]), "ids repeat"),
        (_catalogue("t1", "t2", "t3"), _ratings().take([2, 0]), "not ordered"),
    ],
)
def test_tables_that_break_the_contract_are_not_written(
    tmp_path, catalogue, events, complaint
) -> None:
    with pytest.raises(UnexpectedDataError, match=complaint):
        contract.write(tmp_path, catalogue, events)
    assert not list(tmp_path.iterdir())


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


def test_an_unknown_source_is_refused_with_the_known_ones(tmp_path) -> None:
    with pytest.raises(
        UnknownSourceError, match="ml-1m, ml-100k, movietweetings, simulator, simulator-null"
    ):
        prepare("netflix", tmp_path)


def test_a_damaged_movielens_archive_is_refused(tmp_path) -> None:
    (tmp_path / movielens.ARCHIVE).write_bytes(b"half a download")
    with pytest.raises(ArchiveUnavailableError, match="delete it"):
        movielens.convert(tmp_path, movielens.ML_1M)
