"""The model's answer, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from stream.domain.heads import HEADS


@dataclass(frozen=True, slots=True)
class Intents:
    """The model's answer for B profiles."""

    probs: Mapping[str, NDArray[np.float32]]
    """By the head's name, `[B, C]` in the order of its labels, of the next interaction; all 0 where
    the version was not trained for the head."""
    intent_attention: NDArray[np.float32]
    """`[B, M]` in the order of `INTENTS`."""
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

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]], model_version: list[str]) -> Self:
        """The answer in these outputs, by their names in `OUTPUTS`."""
        return cls(
            probs={head.name: tensors[head.probs] for head in HEADS},
            **{name: tensors[name] for name in _OTHERS},
            model_version=model_version,
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The outputs of the Triton model by name, in the order of `OUTPUTS`."""
        return {head.probs: self.probs[head.name] for head in HEADS} | {
            name: getattr(self, name) for name in _OTHERS
        }

    def rows(self, rows: NDArray[np.intp]) -> Intents:
        """These rows alone, in this order."""
        return Intents.of(
            {name: tensor[rows] for name, tensor in self.tensors().items()},
            [self.model_version[row] for row in rows],
        )


_OTHERS: Final = tuple(
    one.name for one in fields(Intents) if one.name not in ("probs", "model_version")
)

OUTPUTS: Final = (*(head.probs for head in HEADS), *_OTHERS)
"""The outputs of the Triton model."""


def joined(answers: Sequence[Intents]) -> Intents:
    """The rows of all answers, one after the other."""
    parts = [answer.tensors() for answer in answers]
    return Intents.of(
        {name: np.concatenate([part[name] for part in parts]) for name in OUTPUTS},
        [version for answer in answers for version in answer.model_version],
    )
