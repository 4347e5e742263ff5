"""The match in columns gives what Feast's function gives, value by value."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.definitions import intent_title_match
from features.offline.matching import in_columns, matches
from stream.taxonomy import BUILT_IN_LABELS_ID, GENRES, KINDS

TYPES: Final = {
    "title_id": pa.string(),
    "genre_probs": pa.list_(pa.float32()),
    "kind_probs": pa.list_(pa.float32()),
    "next_title_ids": pa.list_(pa.string()),
    "next_title_scores": pa.list_(pa.float32()),
    "title_log_norm": pa.float32(),
    "user_embedding": pa.list_(pa.float32()),
    "model_version": pa.string(),
    "labels_id": pa.string(),
    "title_genres": pa.list_(pa.string()),
    "title_kind": pa.string(),
    "title_genre_numbers": pa.list_(pa.int64()),
    "title_kind_number": pa.int64(),
    "title_labels_id": pa.string(),
    "title_embedding": pa.list_(pa.float32()),
    "title_embedding_version": pa.string(),
}

_shares = st.floats(0, 1, width=32)
_numbers = st.floats(-8, 8, width=32)
_titles = st.sampled_from(["a", "b", "c"])
_labels = st.sampled_from([None, "", BUILT_IN_LABELS_ID, "of theirs"])


def _probs(count: int) -> st.SearchStrategy[list[float] | None]:
    return st.none() | st.just([]) | st.lists(_shares, min_size=count, max_size=count)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    listed = draw(st.lists(_titles, max_size=4))
    size = len(listed)
    return {
        "title_id": draw(_titles),
        "genre_probs": draw(_probs(len(GENRES))),
        "kind_probs": draw(_probs(len(KINDS))),
        "next_title_ids": listed,
        "next_title_scores": draw(st.lists(_shares, min_size=size, max_size=size)),
        "title_log_norm": draw(st.none() | _numbers),
        "user_embedding": draw(st.none() | st.lists(_numbers, max_size=9)),
        "model_version": draw(st.none() | st.sampled_from("12")),
        "labels_id": draw(_labels),
        "title_genres": draw(
            st.none() | st.lists(st.sampled_from([*GENRES[:9], "of theirs"]), max_size=12)
        ),
        "title_kind": draw(st.none() | st.sampled_from([*KINDS, "", "of theirs"])),
        "title_genre_numbers": draw(
            st.none() | st.lists(st.integers(0, len(GENRES) + 2), max_size=12)
        ),
        "title_kind_number": draw(st.none() | st.integers(0, len(KINDS) + 1)),
        "title_labels_id": draw(_labels),
        "title_embedding": draw(st.none() | st.lists(_numbers, max_size=9)),
        "title_embedding_version": draw(st.none() | st.sampled_from("12")),
    }


def table(given_rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table(
        {name: pa.array([row[name] for row in given_rows], kind) for name, kind in TYPES.items()}
    )


@given(st.lists(rows(), min_size=1, max_size=12), st.integers(0, 11))
def test_columns_give_what_the_function_gives(given_rows: list[dict[str, Any]], first: int) -> None:
    # A slice, as a portion of a larger answer is one.
    inputs = table(given_rows).slice(min(first, len(given_rows) - 1))
    expected = intent_title_match.feature_transformation.udf(inputs.to_pydict())
    found = matches(inputs).to_pydict()
    for name, values in expected.items():
        assert found[name] == [
            value if value is None else pytest.approx(value, rel=1e-9, abs=1e-9) for value in values
        ]


def test_a_function_that_isn_t_ours_is_left_to_feast() -> None:
    class Other:
        udf_string = "def intent_title_match(inputs): ..."

    class View:
        feature_transformation = Other()

    view: Any = View()
    assert isinstance(in_columns(view).feature_transformation, Other)
