"""Reliability of probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from fm_intent.calibration import reliability


def test_probabilities_that_come_true_as_often_as_they_say_have_no_error() -> None:
    probs = np.tile(np.array([0.75, 0.25], np.float32), (8, 1))
    came = np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 0, 0, 0, 1]]
    found = reliability(probs, came)
    assert found is not None
    assert found.error == pytest.approx(0)
    assert (found.confidence, found.right, found.count) == ((0.75,), (0.75,), (8,))


def test_the_error_is_how_far_confidence_is_from_what_came() -> None:
    probs = np.array([[0.95, 0.05]] * 3 + [[0.45, 0.55]], np.float32)
    came = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], np.float32)
    found = reliability(probs, came)
    assert found is not None
    assert found.error == pytest.approx((3 * abs(0.95 - 1 / 3) + abs(0.55 - 1)) / 4)


def test_where_several_labels_apply_each_counts_by_its_share() -> None:
    found = reliability(np.array([[0.5, 0.5]], np.float32), np.array([[0.5, 0.5]], np.float32))
    assert found is not None
    assert found.error == 0


def test_answers_of_which_nothing_is_known_say_nothing() -> None:
    assert reliability(np.ones((3, 1), np.float32), np.zeros((3, 1), np.float32)) is None
