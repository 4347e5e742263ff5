"""How much the next titles' distribution weighs in the answers about intents.

A head learns the label of what comes next, whatever it is; a distribution over titles learns which
title is played next, and says what that title is. Each knows something that the other doesn't: a
head what is looked at and not played, titles how old they have become since the training. Answers
are a linear opinion pool of both (Stone, "The Opinion Pool", 1961; `FMIntent.intent_probs`), with
the weights that make held-out interactions likeliest.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from fm_intent.data.dataset import Context, Sequences
from fm_intent.evaluate import NetworkPredictor, in_parts
from fm_intent.served.network import FMIntent

_LEAST: Final = 1e-9
"""So that what was held to be impossible, and came, is but very unlikely."""

_MOST: Final = 0.99
"""Largest weight of the titles. The head keeps some, for labels that no likely title has."""


def pool(model: FMIntent, sequences: Sequences, contexts: Context, device: str) -> None:
    """Set `title_share_M` of `model` to what makes the interactions after `contexts` likeliest.

    Args:
        model: in evaluation mode, on `device`.
        sequences: the data.
        contexts: of interactions that the model wasn't trained on and won't be tested on.
        device: of torch.
    """
    ranker = NetworkPredictor(model, device)
    parts = in_parts(contexts)
    said = [ranker.opinions(sequences, part) for _, part in parts]
    order = np.concatenate([rows for rows, _ in parts])
    for intent, labels in enumerate(sequences.intents(contexts)):
        if all(intent in one for one in said):
            heads, titles = zip(*(one[intent] for one in said), strict=True)
            model.title_share_M[intent] = likeliest_share(
                np.concatenate(heads), np.concatenate(titles), labels[:, 0].numpy()[order]
            )


def likeliest_share(
    head_NC: NDArray[np.float32], titles_NC: NDArray[np.float32], came: NDArray[Any]
) -> float:
    """The weight, 0 to 0.99, of `titles_NC` beside `head_NC` under which what came is likeliest.

    Args:
        head_NC: distributions; each row sums to 1.
        titles_NC: of the same rows; each sums to at most 1.
        came: int `[N]`, the class, -1 where unknown; or float `[N, C]`, the share of each, all 0
            where unknown.
    """
    if came.ndim == 1:
        came = (came[:, None] == np.arange(head_NC.shape[1])).astype(np.float32)
    known = came.sum(1) > 0
    head_NC, titles_NC, came = head_NC[known], titles_NC[known], came[known]

    def unlikeliness(share: float) -> float:
        pooled = (1 - share) * head_NC + share * titles_NC
        likely = pooled / pooled.sum(1, keepdims=True).clip(_LEAST)
        return -float((came * np.log(likely.clip(_LEAST))).sum())

    # Both ends are tried, too: the search stays inside.
    inside = minimize_scalar(unlikeliness, bounds=(0, _MOST), method="bounded").x
    return min((0.0, _MOST, float(inside)), key=unlikeliness)
