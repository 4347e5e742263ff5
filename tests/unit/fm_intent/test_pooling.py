from __future__ import annotations

import numpy as np
import pytest
import torch

from fm_intent.pooling import likeliest_share, pool
from tests.unit.fm_intent import tiny

DATA = tiny.sequences()
HEAD = np.full((10, 2), 0.5, np.float32)
TITLES = np.array([[1, 0]] * 9 + [[0, 1]], np.float32)


@pytest.mark.parametrize(
    ("right", "wanted"),
    [
        # Where r of n are right, (1 + s)^r (1 - s)^(n - r) is highest at s = 2 r / n - 1.
        pytest.param(9, 0.8, id="what was held to be impossible came once"),
        pytest.param(7, 0.4, id="titles were often wrong"),
        pytest.param(5, 0.0, id="titles knew nothing"),
        pytest.param(2, 0.0, id="titles were mostly wrong"),
        pytest.param(10, 0.99, id="titles were always right"),
    ],
)
def test_the_share_is_the_one_under_which_what_came_is_likeliest(right: int, wanted: float) -> None:
    said = TITLES.argmax(1)
    came = np.where(np.arange(10) < right, said, 1 - said)
    assert likeliest_share(HEAD, TITLES, came) == pytest.approx(wanted, abs=1e-3)


def test_what_a_title_has_no_label_for_is_left_to_the_others() -> None:
    silent = np.concatenate([TITLES, np.zeros((5, 2), np.float32)])
    heads = np.full((15, 2), 0.5, np.float32)
    assert likeliest_share(heads, silent, np.zeros(15, int)) == pytest.approx(0.8, abs=1e-3)


def test_labels_in_shares_count_as_the_same_labels_in_classes() -> None:
    came = np.zeros(10, int)
    shares = np.eye(2, dtype=np.float32)[came]
    assert likeliest_share(HEAD, TITLES, shares) == likeliest_share(HEAD, TITLES, came)


def test_what_is_not_known_has_no_say() -> None:
    came = np.where(np.arange(10) < 5, -1, 0)
    assert likeliest_share(HEAD, TITLES, came) == pytest.approx(0.6, abs=1e-3)


def test_titles_of_an_untrained_network_are_weighed_by_what_came() -> None:
    model = tiny.network(DATA)
    contexts = DATA.validation_interactions(64, "served")
    pool(model, DATA, contexts, "cpu")
    assert model.title_share_M[0] == 0  # titles say nothing of the action
    chosen = model.title_share_M.clone()
    pool(model, DATA, contexts, "cpu")
    torch.testing.assert_close(model.title_share_M, chosen)
    backwards = type(contexts)(*(column[::-1].copy() for column in contexts))
    pool(model, DATA, backwards, "cpu")
    torch.testing.assert_close(model.title_share_M, chosen, atol=1e-3, rtol=0)


def test_a_network_without_heads_is_left_as_it_is() -> None:
    data = tiny.sequences(browsing=False)
    model = tiny.network(data, tiny.Architecture(width=16, hidden=24, intents="none"))
    pool(model, data, data.validation_interactions(64, "served"), "cpu")
    assert not model.title_share_M.any()
