"""What FM-Intent is compared with, on the same data, loop and evaluator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fm_intent.dataset import Sequences
from fm_intent.network import FIRST_ROW, Domain, Encoded, Interactions, at


class Popularity:
    """Scores each title by its plays in the training part."""

    def __init__(self, sequences: Sequences) -> None:
        self._plays = sequences.popularity()

    def __call__(self, interactions: Interactions) -> NDArray[np.float32]:
        """`[B, V]` scores, the same for every window."""
        return np.broadcast_to(self._plays, (len(interactions.length_B), len(self._plays)))


@dataclass(frozen=True)
class SASRecSettings:
    """Settings of `SASRec`."""

    width: int = 64
    heads: int = 2
    layers: int = 2
    dropout: float = 0.2


class SASRec(nn.Module):
    """Self-attentive sequential recommendation (arXiv 1808.09781), for full cross-entropy.

    Knows titles and their order alone; takes and gives what `FMIntent` does.

    Args:
        settings: what is chosen.
        domain: gives the vocabulary.
        window: interactions of a window at most.
    """

    def __init__(self, settings: SASRecSettings, domain: Domain, window: int) -> None:
        super().__init__()
        self.domain = domain
        self.title = nn.Embedding(FIRST_ROW + domain.vocabulary, settings.width, padding_idx=0)
        self.slot = nn.Embedding(window, settings.width)
        for vectors in (self.title, self.slot):
            nn.init.normal_(vectors.weight, std=0.02)
        self.dropout = nn.Dropout(settings.dropout)
        layer = nn.TransformerEncoderLayer(
            settings.width,
            settings.heads,
            dim_feedforward=settings.width * 4,
            dropout=settings.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, settings.layers, nn.LayerNorm(settings.width), enable_nested_tensor=False
        )

    def titles(self) -> Tensor:
        """Title vectors `[V + 2, D]`."""
        return self.title.weight

    def candidates(self, titles_TD: Tensor) -> Tensor:
        """The vectors `[V, D]` of the titles that are scored."""
        return titles_TD[FIRST_ROW:]

    def forward(self, x: Interactions, titles_TD: Tensor, *, newest_only: bool = False) -> Encoded:
        """As `FMIntent.forward`, without intents."""
        length = x.title_BL.shape[1]
        vectors = nn.functional.embedding(x.title_BL, titles_TD, padding_idx=0)
        hidden = self.dropout(vectors * vectors.shape[-1] ** 0.5 + self.slot.weight[:length])
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=hidden.device)
        user = self.layers(hidden, mask, is_causal=True)
        if newest_only:
            user = at(user, x.length_B - 1)
        nothing = (None,) * len(self.domain.trained)
        attention = torch.zeros(*user.shape[:2], len(nothing), device=user.device)
        return Encoded(user, nothing, attention, torch.zeros_like(user))
