from __future__ import annotations

from datetime import UTC, datetime
from math import log
from typing import Any

import pyarrow as pa

from features.definitions import intent_title_match, title_profile
from features.online.titles import SCHEMA, title_rows
from stream.domain.labels import GENRES
from stream.domain.version_labels import BUILT_IN, VersionLabels

CUT = datetime(2003, 3, 1, tzinfo=UTC)
NOW = datetime(2004, 1, 1, tzinfo=UTC)


def catalogue(release_day: int | None) -> pa.Table:
    return pa.table(
        {
            "title_id": ["t"],
            "genres": [["drama"]],
            "kind": ["movie"],
            "release_day": pa.array([release_day], pa.int32()),
        }
    )


def rows(release_day: int | None, *vector: float) -> list[dict[str, Any]]:
    vectors = {"t": vector} if vector else {}
    table = title_rows(catalogue(release_day), vectors, "3", CUT, NOW)
    result: list[dict[str, Any]] = table.to_pylist()
    return result


def test_a_batch_has_every_field_of_the_view() -> None:
    assert {field.name for field in title_profile.schema} <= set(SCHEMA.names)


def test_a_vector_is_dated_by_the_end_of_the_training_data() -> None:
    first, second = rows(0, 1.0)
    assert (first["title_embedding"], second["title_embedding"]) == (None, [1.0])
    assert second["event_timestamp"] == CUT


def test_a_vector_of_a_title_released_later_is_dated_by_its_release() -> None:
    day = (datetime(2003, 6, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    assert rows(day, 1.0)[1]["event_timestamp"] == datetime(2003, 6, 1, tzinfo=UTC)


def test_a_title_is_known_since_its_release_even_before_1970() -> None:
    assert rows(-365)[0]["event_timestamp"] == datetime(1969, 1, 1, tzinfo=UTC)


def test_a_title_without_a_release_day_is_known_since_1970() -> None:
    only = rows(None)[0]
    assert only["event_timestamp"] == datetime(1970, 1, 1, tzinfo=UTC)
    assert only["title_released_at"] is None


def match(**changes: Any) -> dict[str, float | None]:
    inputs: dict[str, Any] = {
        "genre_probs": [0.0] * len(GENRES),
        "kind_probs": [0.25, 0.75],
        "next_title_ids": ["a", "b"],
        "next_title_scores": [0.5, 0.125],
        "title_log_norm": 2.0,
        "user_embedding": [1.0, 2.0],
        "model_version": "3",
        "labels_id": BUILT_IN.id,
        "title_genres": ["drama", "war"],
        "title_kind": "show",
        "title_genre_numbers": BUILT_IN.genre_numbers(["drama", "war"]),
        "title_kind_number": BUILT_IN.kind_number("show"),
        "title_labels_id": BUILT_IN.id,
        "title_embedding": [0.5, -1.0],
        "title_embedding_version": "3",
    }
    inputs["genre_probs"][GENRES.index("drama")] = 0.5
    inputs["genre_probs"][GENRES.index("war")] = 0.125
    udf = intent_title_match.feature_transformation.udf
    columns = udf({name: [value] for name, value in (inputs | changes).items()})
    return {name: values[0] for name, values in columns.items()}


def test_a_title_matches_by_the_probability_of_all_its_genres() -> None:
    assert match()["genre_match"] == 0.625


def test_a_title_matches_by_the_probability_of_its_kind() -> None:
    assert match()["kind_match"] == 0.75
    assert match(title_kind_number=0)["kind_match"] == 0.25
    assert match(title_kind="opera", title_kind_number=None)["kind_match"] == 0


def test_a_title_matches_by_the_log_of_its_probability_by_both_vectors() -> None:
    assert match()["embedding_match"] == -1.5 - 2.0
    assert match(title_id="c")["embedding_match"] == -1.5 - 2.0


def test_one_of_the_next_titles_matches_by_the_log_of_its_probability() -> None:
    assert match(title_id="b")["embedding_match"] == log(0.125)


def test_one_whose_probability_is_too_small_to_tell_matches_by_both_vectors() -> None:
    found = match(title_id="b", next_title_scores=[1.0, 0.0])
    assert found["embedding_match"] == -1.5 - 2.0


def test_vectors_of_different_versions_are_not_compared() -> None:
    assert match(title_embedding_version="2")["embedding_match"] is None


def test_probabilities_of_other_labels_than_the_title_s_are_not_compared() -> None:
    other = match(title_labels_id=VersionLabels(genres=("drama", "war")).id)
    assert (other["genre_match"], other["kind_match"]) == (None, None)
    assert other["embedding_match"] is not None


def test_rows_of_before_are_of_the_labels_that_all_had() -> None:
    names = ("title_genre_numbers", "title_kind_number", "title_labels_id")
    for row in ({"labels_id": None}, dict.fromkeys(names), dict.fromkeys((*names, "labels_id"))):
        assert match(**row) == match()


def test_a_title_has_the_numbers_of_the_version_s_labels() -> None:
    labels = VersionLabels(genres=("other", "tragedy"), genre_aliases={"drama": "tragedy"})
    (row,) = title_rows(catalogue(0), {}, "3", CUT, NOW, labels).to_pylist()
    assert (row["title_genre_numbers"], row["title_kind_number"]) == ([1], 0)
    assert row["title_labels_id"] == labels.id
    assert row["title_genres"] == ["drama"]


def test_masked_heads_match_nothing() -> None:
    masked = match(genre_probs=[], kind_probs=[])
    assert (masked["genre_match"], masked["kind_match"]) == (None, None)


def test_an_absent_profile_matches_nothing() -> None:
    read = intent_title_match.source_feature_view_projections["profile_intent"].features
    absent = dict.fromkeys(feature.name for feature in read)
    assert set(match(**absent).values()) == {None}


def test_an_absent_title_matches_nothing() -> None:
    names = ("title_genres", "title_kind", "title_embedding", "title_embedding_version")
    assert set(match(**dict.fromkeys(names)).values()) == {None}


def test_the_match_runs_from_its_source_text_alone() -> None:
    source = intent_title_match.feature_transformation.udf_string
    namespace: dict[str, Any] = {}
    exec(source[source.index("def intent_title_match") :], namespace)
    assert callable(namespace["intent_title_match"])
