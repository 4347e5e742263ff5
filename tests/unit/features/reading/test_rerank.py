"""The terms of a score, the answer's order and reasons, and weights: learnt, read, refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.reading.learning import learn_weights
from features.reading.rerank import MATCHES, TERMS, Weights, place_scores, score_terms
from stream.exceptions import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_numbers = st.floats(-1e6, 1e6)
_queries = st.integers(1, 12).flatmap(
    lambda count: st.tuples(
        st.lists(_numbers, min_size=count, max_size=count),
        st.lists(
            st.lists(
                _numbers | st.just(float("nan")), min_size=len(MATCHES), max_size=len(MATCHES)
            ),
            min_size=count,
            max_size=count,
        ),
    )
)


@given(_queries)
def test_terms_are_finite_and_average_to_nothing(
    query: tuple[list[float], list[list[float]]],
) -> None:
    engine, matches = map(np.array, query)
    found = score_terms(engine, matches)
    assert np.isfinite(found).all()
    assert np.allclose(found.mean(0), 0, atol=1e-3)


def test_a_missing_feature_counts_as_average() -> None:
    matches = np.array([[0.0, 0.2, 5.0], [0.0, 0.2, np.nan], [0.0, 0.2, 3.0]])
    assert score_terms(np.zeros(3), matches)[:, 3].tolist() == [1.0, 0.0, -1.0]


def test_the_engine_s_scale_does_not_matter() -> None:
    scores, nothing = np.array([3.0, 1.0, 2.0]), np.full((3, len(MATCHES)), np.nan)
    assert np.allclose(score_terms(scores, nothing), score_terms(1000 * scores - 7, nothing))


def test_scores_made_of_places_fall() -> None:
    assert (np.diff(place_scores(5)) < 0).all()


def _choices(
    weights: NDArray[np.float64], rng: np.random.Generator
) -> tuple[list[NDArray[np.float64]], list[int]]:
    queries = [rng.normal(size=(rng.integers(2, 9), len(TERMS))) for _ in range(3000)]
    chosen = [int(np.argmax(one @ weights + rng.gumbel(size=len(one)))) for one in queries]
    return queries, chosen


def test_weights_behind_choices_are_found_again() -> None:
    weights = np.array([1.5, -0.5, 0.0, 2.0])
    queries, chosen = _choices(weights, np.random.default_rng(7))
    assert np.allclose(learn_weights(queries, chosen).vector(), weights, atol=0.15)


def test_nothing_is_learnt_without_queries() -> None:
    with pytest.raises(WeightsError, match="collect choices"):
        learn_weights([], [])


def test_weights_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text('{"engine_score": 0.5, "kind_match": 2}')
    assert Weights.read(path) == Weights(engine_score=0.5, kind_match=2.0)


@pytest.mark.parametrize(
    "text", ['{"engine": 1}', '{"kind_match": "a"}', '{"kind_match": NaN}', ""]
)
def test_a_file_without_weights_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "weights.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=r"weights\.json"):
        Weights.read(path)
