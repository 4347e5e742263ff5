"""How far two versions' answers are apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.domain.divergence import Divergence, Drift, divergence, drift
from stream.domain.heads import INTENTS
from stream.domain.prediction import Intents
from tests.unit.stream.fakes import answer

WEIGHTS = st.lists(st.floats(0, 1), min_size=7, max_size=7).filter(lambda row: sum(row) > 0.01)


def answers(action: Any = None, titles: Any = None) -> Intents:
    """One answer with this distribution over actions, and these next titles."""
    one = answer(1)
    if action is not None:
        one = replace(one, probs={**one.probs, "action": _normalised(action)})
    if titles is not None:
        one = replace(one, next_title_hash=np.array([titles]))
    return one


def _normalised(weights: Any) -> NDArray[np.float32]:
    row = np.array([weights], np.float32)
    return row / max(row.sum(), 1e-9)


@given(WEIGHTS, WEIGHTS)
def test_the_divergence_of_two_distributions_is_symmetric_and_at_most_one_bit(
    p: list[float], q: list[float]
) -> None:
    there = divergence(answers(p), answers(q)).heads["action"]
    back = divergence(answers(q), answers(p)).heads["action"]
    np.testing.assert_allclose(there, back, atol=1e-9)
    assert 0 <= there.item() <= 1


def test_equal_distributions_do_not_diverge_and_disjoint_ones_do_by_one_bit() -> None:
    left, right = [1, 1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 1, 0]
    assert divergence(answers(left), answers(left)).heads["action"] == 0
    assert divergence(answers(left), answers(right)).heads["action"] == 1


def test_half_of_a_distribution_moved_away_is_what_the_formula_says() -> None:
    apart = divergence(answers([1, 0, 0, 0, 0, 0, 0]), answers([1, 1, 0, 0, 0, 0, 0]))
    # H(3/4, 1/4) - H(1/2, 1/2) / 2
    assert apart.heads["action"].item() == pytest.approx(0.311278, abs=1e-6)


def test_a_head_that_only_the_first_version_predicts_diverges_wholly() -> None:
    assert divergence(answers([1] * 7), answers([0] * 7)).heads["action"] == 1


def test_a_head_that_the_first_version_lacks_is_not_compared() -> None:
    apart = divergence(answers([0] * 7), answers([1] * 7))
    assert np.isnan(apart.heads["action"]).all()
    together = drift([apart])
    assert together is not None
    assert "action" not in together.heads


@pytest.mark.parametrize(
    ("live", "shadow", "share"),
    [
        ([1, 2, 3, 4], [4, 3, 2, 1], 1.0),
        ([1, 2, 3, 4], [4, 5, 6, 1], 0.5),
        ([1, 2, 3, 4], [5, 6, 7, 8], 0.0),
        ([1, 2, 0, 0], [2, 3, 0, 0], 0.5),
        ([0, 0, 0, 0], [1, 2, 3, 4], 1.0),
    ],
)
def test_the_overlap_is_the_share_of_proposed_titles_in_any_order(
    live: list[int], shadow: list[int], share: float
) -> None:
    assert divergence(answers(titles=live), answers(titles=shadow)).overlap == share


def test_drift_is_the_mean_over_all_rows_not_over_parts() -> None:
    def part(rows: int, overlap: float) -> Divergence:
        return Divergence(
            {head: np.full(rows, overlap / 2) for head in INTENTS},
            np.full(rows, overlap),
        )

    together = drift([part(3, 1.0), part(1, 0.0)])
    assert together is not None
    assert (together.rows, together.overlap, together.heads["genre"]) == (4, 0.75, 0.375)
    assert drift([]) is None


def test_what_goes_beyond_the_bounds_is_named() -> None:
    drifted = Drift(rows=10, heads={"action": 0.3, "genre": 0.1}, overlap=0.2)
    assert drifted.complaints(max_divergence=0.3, min_overlap=0.2) == []
    (head, titles) = drifted.complaints(max_divergence=0.29, min_overlap=0.21)
    assert head.startswith("action diverges by 0.300 bits")
    assert titles.startswith("0.200 of the next titles are the same")
