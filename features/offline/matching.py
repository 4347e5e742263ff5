"""The on-demand match of titles, in columns: what a historical read of millions of rows computes.

Feast runs `intent_title_match` (see `features.definitions`) over Python's lists, value by value.
The same is here done over whole columns. Where the registry holds another function than this
release's, that one is run, as Feast does.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.definitions import intent_title_match
from stream.taxonomy import BUILT_IN_LABELS_ID, GENRES, KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast import Field
    from feast.on_demand_feature_view import OnDemandFeatureView
    from numpy.typing import NDArray

_ROWS: Final = 65_536
"""Rows that are computed at once; their embeddings are 70 MB."""


def in_columns(view: OnDemandFeatureView) -> OnDemandFeatureView:
    """The view, with its function exchanged for the same one in columns where there is that."""
    ours = intent_title_match.feature_transformation.udf_string
    if view.feature_transformation.udf_string == ours:
        view.feature_transformation = _InColumns()
    return view


class _InColumns:
    """Feast's transformation, as far as a historical read uses it."""

    def transform_arrow(self, table: pa.Table, features: Sequence[Field]) -> pa.Table:
        portions = [table.slice(first, _ROWS) for first in range(0, len(table) or 1, _ROWS)]
        return pa.concat_tables([matches(portion) for portion in portions])


def matches(inputs: pa.Table) -> pa.Table:
    """What `intent_title_match` gives for the rows of its inputs.

    Args:
        inputs: The inputs of that view by their short names, and `title_id`.

    Returns:
        `genre_match`, `kind_match` and `embedding_match`, float64, null where an input lacks.
    """
    inputs = inputs.combine_chunks()
    return pa.table(
        {
            "genre_match": _genre_match(inputs),
            "kind_match": _kind_match(inputs),
            "embedding_match": _embedding_match(inputs),
        }
    )


def _genre_match(inputs: pa.Table) -> pa.Array:
    probs, names = _Lists(inputs["genre_probs"]), _Lists(inputs["title_genres"])
    numbers, has_numbers = _Lists(inputs["title_genre_numbers"]), _has_numbers(inputs)
    by_number, by_name = has_numbers[numbers.rows], ~has_numbers[names.rows]
    rows = np.concatenate([numbers.rows[by_number], names.rows[by_name]])
    places = np.concatenate(
        [_whole(numbers.values)[by_number], _places(names.values, GENRES)[by_name]]
    )
    sums = np.bincount(*_chosen(probs, rows, places), len(inputs))
    return _nullable(sums, _are_alike(inputs) & (probs.lengths > 0) & (names.lengths > 0))


def _kind_match(inputs: pa.Table) -> pa.Array:
    probs, names = _Lists(inputs["kind_probs"]), inputs["title_kind"].combine_chunks()
    numbers = _whole(inputs["title_kind_number"].combine_chunks())
    places = np.where(_has_numbers(inputs), numbers, _places(names, KINDS))
    sums = np.bincount(*_chosen(probs, np.arange(len(inputs)), places), len(inputs))
    return _nullable(sums, _are_alike(inputs) & (probs.lengths > 0) & _is_told(names))


def _has_numbers(inputs: pa.Table) -> NDArray[np.bool_]:
    """Whether a title's row has numbers; one of an older release has names alone."""
    return _is_told(inputs["title_labels_id"].combine_chunks())


def _are_alike(inputs: pa.Table) -> NDArray[np.bool_]:
    """Whether the two rows are of the same labels; those of an older release are of the first."""
    columns = (inputs[name].combine_chunks() for name in ("labels_id", "title_labels_id"))
    one, other = (pc.if_else(_is_told(ids), ids, BUILT_IN_LABELS_ID) for ids in columns)
    return np.asarray(pc.equal(one, other).to_numpy(zero_copy_only=False), bool)


def _chosen(
    probs: _Lists, rows: NDArray[np.int64], places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows, and the probabilities at these places of theirs, without places that aren't there."""
    within = (places >= 0) & (places < probs.lengths[rows])
    rows = rows[within]
    return rows, probs.numbers()[probs.starts[rows] + places[within]]


def _embedding_match(inputs: pa.Table) -> pa.Array:
    user, title = _Lists(inputs["user_embedding"]), _Lists(inputs["title_embedding"])
    norms = inputs["title_log_norm"].combine_chunks()
    versions = (inputs[name].to_numpy() for name in ("model_version", "title_embedding_version"))
    told = (
        (user.lengths > 0)
        & (title.lengths > 0)
        & norms.is_valid().to_numpy(False)
        & np.equal(*versions).astype(bool)
    )
    lengths = np.where(told, np.minimum(user.lengths, title.lengths), 0)
    rows = np.repeat(np.arange(len(inputs)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    products = (
        user.numbers()[user.starts[rows] + within] * title.numbers()[title.starts[rows] + within]
    )
    # As the function adds: the norm first, then product by product.
    begin = -pc.fill_null(norms, 0).to_numpy(False).astype(float)
    where = np.concatenate([np.arange(len(inputs)), rows])
    scores = np.bincount(where, np.concatenate([begin, products]), len(inputs))
    if "title_id" in inputs.column_names:
        _take_listed(scores, told, inputs)
    return _nullable(scores, told)


def _take_listed(scores: NDArray[Any], told: NDArray[np.bool_], inputs: pa.Table) -> None:
    """Put in the log of the probability of titles that are listed with one."""
    listed, listed_scores = _Lists(inputs["next_title_ids"]), _Lists(inputs["next_title_scores"])
    asked = inputs["title_id"].combine_chunks().take(pa.array(listed.rows))
    found = np.flatnonzero(pc.fill_null(pc.equal(listed.values, asked), False).to_numpy(False))
    rows, first = np.unique(listed.rows[found], return_index=True)
    places = found[first] - listed.starts[rows]
    within = told[rows] & (places < listed_scores.lengths[rows])
    rows, places = rows[within], places[within]
    probabilities = listed_scores.numbers()[listed_scores.starts[rows] + places]
    likely = probabilities > 0
    scores[rows[likely]] = [log(one) for one in probabilities[likely].tolist()]


class _Lists:
    """A column of lists as its values and where each row's begin."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        lists = column.combine_chunks()
        self.lengths: NDArray[Any] = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(False)
        self.values: pa.Array = lists.flatten()
        """Of all rows that aren't null."""
        self.starts: NDArray[Any] = np.cumsum(self.lengths) - self.lengths
        self.rows: NDArray[Any] = np.repeat(np.arange(len(lists)), self.lengths)
        """The row of each value."""

    def numbers(self) -> NDArray[np.float64]:
        """The values, as Python has them."""
        return np.asarray(self.values.to_numpy(zero_copy_only=False), np.float64)


def _places(values: pa.Array, labels: Sequence[str]) -> NDArray[np.int64]:
    """The place of each value among the labels; -1 where it is none."""
    return _whole(pc.index_in(values, value_set=pa.array(labels, pa.string())))


def _whole(values: pa.Array) -> NDArray[np.int64]:
    """Whole numbers; -1 where there is none."""
    return np.asarray(pc.fill_null(values, -1).to_numpy(zero_copy_only=False), np.int64)


def _is_told(texts: pa.Array) -> NDArray[np.bool_]:
    """Where a text is neither null nor empty."""
    told = pc.fill_null(pc.not_equal(texts, ""), False)
    return np.asarray(told.to_numpy(zero_copy_only=False), bool)


def _nullable(values: NDArray[Any], told: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, pa.float64(), mask=~told)
