"""The model's answer, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Intents:
    """The model's answer for B profiles; the fields are the outputs of the Triton model, by name.

    A head that the version was not trained for has all-zero probabilities.
    """

    action_probs: NDArray[np.float32]
    """`[B, 7]` in the order of `ACTIONS`, of the next interaction."""
    genre_probs: NDArray[np.float32]
    """`[B, 34]` in the order of `GENRES`."""
    kind_probs: NDArray[np.float32]
    """`[B, 2]` in the order of `KINDS`."""
    release_age_probs: NDArray[np.float32]
    """`[B, 7]` in the order of `RELEASE_AGES`."""
    intent_attention: NDArray[np.float32]
    """`[B, 4]` in the order of `INTENTS`."""
    intent_embedding: NDArray[np.float32]
    """`[B, D]`."""
    intent_cluster: NDArray[np.int32]
    """`[B, 1]`; -1 where the version has no clusters."""
    next_title_hash: NDArray[np.int64]
    """`[B, K]` the next titles played, likeliest first."""
    next_title_score: NDArray[np.float32]
    """`[B, K]` their probabilities."""
    title_log_norm: NDArray[np.float32]
    """`[B, 1]`; a title's score less this is the log of its probability."""
    user_embedding: NDArray[np.float32]
    """`[B, D]`; its dot product with a title embedding of the same version is the title's score, or
    less than it where the profile's window has the title."""
    model_version: list[str]
    """`[B]` the version that answered each row."""

    def rows(self, rows: NDArray[np.intp]) -> Intents:
        """These rows alone, in this order."""
        return Intents(
            **{name: getattr(self, name)[rows] for name in OUTPUTS},
            model_version=[self.model_version[row] for row in rows],
        )


OUTPUTS: Final = tuple(f.name for f in fields(Intents) if f.name != "model_version")
"""The outputs of the Triton model."""


def joined(answers: Sequence[Intents]) -> Intents:
    """The rows of all answers, one after the other."""
    return Intents(
        **{name: np.concatenate([getattr(answer, name) for answer in answers]) for name in OUTPUTS},
        model_version=[version for answer in answers for version in answer.model_version],
    )
