from __future__ import annotations

import numpy as np
import pytest
import torch

from fm_intent.pooling import likeliest_share, pool
from tests.unit.fm_intent import tiny

DATA = tiny.sequences()
HEAD = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]], np.float32)
TITLES = np.array([[0.5, 0.4], [0.1, 0.9], [0.7, 0.2], [0.0, 1.0]], np.float32)


def likelihood(share: float, came: list[int]) -> float:
    pooled = (1 - share) * HEAD + share * TITLES
    pooled /= pooled.sum(1, keepdims=True)
    return sum(float(np.log(row[label])) for row, label in zip(pooled, came, strict=True))


@pytest.mark.parametrize(
    ("came", "wanted"), [([0, 0, 1, 0], "heads"), ([1, 1, 0, 1], "titles"), ([0, 1, 1, 1], "both")]
)
def test_the_share_is_the_one_under_which_what_came_is_likeliest(
    came: list[int], wanted: str
) -> None:
    share = likeliest_share(HEAD, TITLES, np.array(came))
    kind = {0.0: "heads", 0.99: "titles"}.get(share, "both")
    assert kind == wanted
    around = [one for one in (share - 0.02, share + 0.02) if 0 <= one <= 0.99]
    assert all(likelihood(share, came) > likelihood(one, came) for one in around)


def test_labels_in_shares_count_as_the_same_labels_in_classes() -> None:
    came = np.array([0, 1, 1, 1])
    shares = np.eye(2, dtype=np.float32)[came]
    assert likeliest_share(HEAD, TITLES, shares) == likeliest_share(HEAD, TITLES, came)


def test_what_is_not_known_has_no_say() -> None:
    known = likeliest_share(HEAD[:3], TITLES[:3], np.array([0, 1, 1]))
    assert likeliest_share(HEAD, TITLES, np.array([0, 1, 1, -1])) == pytest.approx(known)


def test_what_was_held_to_be_impossible_leaves_a_share() -> None:
    assert 0 <= likeliest_share(HEAD, TITLES, np.array([0, 0, 0, 0])) < 1


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
