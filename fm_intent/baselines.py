"""What FM-Intent is compared with, on the same data, loop and evaluator.

Each baseline is a frozen dataclass of settings that builds its network. The networks take and give
what `FMIntent` does, without intents. `GRU`, `SASRec` and `TransAct` know what their papers give
them; `WithMetadata` gives the latter two all that FM-Intent knows, so that what FM-Intent gains
over them is not just metadata and time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fm_intent.data.dataset import Context, Sequences
from fm_intent.served.network import (
    FIRST_ROW,
    UNKNOWN_ROW,
    Architecture,
    Asked,
    Domain,
    Encoded,
    FMIntent,
    Interactions,
    Keep,
    Stage,
    at,
)


class Popularity:
    """Takes what was played more in the training part for more likely, whatever the context."""

    def __init__(self, sequences: Sequences) -> None:
        self._log_plays = np.log1p(sequences.popularity())

    def scores(self, sequences: Sequences, contexts: Context) -> NDArray[np.float32]:
        """`[B, V]`, the same for every context."""
        return np.tile(self._log_plays, (len(contexts.end), 1))

    def intents(self, sequences: Sequences, contexts: Context) -> tuple[None, ...]:
        """It has no heads."""
        return (None,) * len(sequences.domain.trained)


@dataclass(frozen=True)
class GRUSettings:
    """Settings of `GRU`.

    Attributes:
        width: of title vectors.
        hidden: of the recurrent state.
        layers: one upon the other.
        dropout: of inputs.
    """

    width: int = 64
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.2

    def build(self, sequences: Sequences, window: int) -> Baseline:
        """The untrained network; `window` has no bearing on it."""
        del window
        return GRU(self, sequences.domain)


@dataclass(frozen=True)
class SASRecSettings:
    """Settings of `SASRec`."""

    width: int = 64
    heads: int = 2
    layers: int = 2
    dropout: float = 0.2

    def build(self, sequences: Sequences, window: int) -> Baseline:
        """The untrained network, for windows of at most `window` interactions."""
        return SASRec(self, sequences.domain, window)

    def stage(self, inputs: int, architecture: Architecture) -> Stage:
        """The sequence model that `WithMetadata` puts on FM-Intent's inputs."""
        return _SASRecStage(self, inputs, architecture)


@dataclass(frozen=True)
class TransActSettings:
    """Settings of `TransAct`.

    Attributes:
        width: of title vectors.
        action_width: of the vectors of action types.
        heads: of each layer.
        layers: of the Transformer.
        latest: K, outputs that are taken as they are; the others count by their maximum alone.
        dropout: of inputs and inside the layers.
    """

    width: int = 64
    action_width: int = 32
    heads: int = 2
    layers: int = 2
    latest: int = 10
    dropout: float = 0.2

    def build(self, sequences: Sequences, window: int) -> Baseline:
        """The untrained network; `window` has no bearing on it."""
        del window
        return TransAct(self, sequences.domain)

    def stage(self, inputs: int, architecture: Architecture) -> Stage:
        """The sequence model that `WithMetadata` puts on FM-Intent's inputs."""
        return _TransActStage(self, inputs, architecture)


@dataclass(frozen=True)
class WithMetadata:
    """Settings of `MetadataBaseline`.

    Attributes:
        of: whose sequence model it is.
        target_time: whether it is told when the next play happens.
    """

    of: SASRecSettings | TransActSettings
    target_time: bool = False

    def build(self, sequences: Sequences, window: int) -> Baseline:
        """The untrained network; `window` has no bearing on it."""
        del window
        return MetadataBaseline(self, sequences)


class TitleBaseline(nn.Module):
    """A network that scores next titles by dot products with title vectors.

    It has none for titles that were looked at and never played, which count as unknown.

    Args:
        domain: gives the vocabulary.
        width: D, of title vectors.
    """

    def __init__(self, domain: Domain, width: int) -> None:
        super().__init__()
        self.domain = domain
        self.title = nn.Embedding(FIRST_ROW + domain.vocabulary, width, padding_idx=0)
        nn.init.normal_(self.title.weight, std=0.02)

    def titles(self) -> Tensor:
        """Title vectors `[V + 2, D]`."""
        return self.title.weight

    def candidates(self, titles_TD: Tensor) -> Tensor:
        """The vectors `[V, D]` of the titles that are scored."""
        return titles_TD[FIRST_ROW:]

    def encode(self, x: Interactions, title_BLD: Tensor) -> Tensor:
        """The user's vector `[B, L, D]` at each position, from it and those before.

        Args:
            x: the windows.
            title_BLD: their titles' vectors.
        """
        raise NotImplementedError

    def forward(
        self,
        x: Interactions,
        titles_TD: Tensor,
        *,
        newest_only: bool = False,
        asked_ms_BL: Tensor | None = None,
    ) -> Encoded:
        """Like `FMIntent.forward`, without intents and without times."""
        del asked_ms_BL
        row_BL = x.title_BL.where(x.title_BL < len(titles_TD), UNKNOWN_ROW)
        user = self.encode(x, functional.embedding(row_BL, titles_TD, padding_idx=0))
        if newest_only:
            user = at(user, x.length_B - 1)
        nothing = (None,) * len(self.domain.trained)
        attention = torch.zeros(*user.shape[:2], len(nothing), device=user.device)
        return Encoded(user, nothing, attention, torch.zeros_like(user))


class GRU(TitleBaseline):
    """A recurrent network over titles in their order (GRU4Rec, arXiv 1511.06939)."""

    def __init__(self, settings: GRUSettings, domain: Domain) -> None:
        super().__init__(domain, settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.recurrent = nn.GRU(settings.width, settings.hidden, settings.layers, batch_first=True)
        self.out = nn.Linear(settings.hidden, settings.width)

    def encode(self, x: Interactions, title_BLD: Tensor) -> Tensor:
        """The projected state after each position."""
        # Title vectors start small, which a recurrent state would hardly feel.
        hidden, _ = self.recurrent(self.dropout(title_BLD * title_BLD.shape[-1] ** 0.5))
        user: Tensor = self.out(hidden)
        return user


class SASRec(TitleBaseline):
    """Self-attentive sequential recommendation (arXiv 1808.09781), for full cross-entropy.

    Knows titles and their order alone.

    Args:
        settings: what is chosen.
        domain: gives the vocabulary.
        window: interactions of a window at most.
    """

    def __init__(self, settings: SASRecSettings, domain: Domain, window: int) -> None:
        super().__init__(domain, settings.width)
        self.slot = nn.Embedding(window, settings.width)
        nn.init.normal_(self.slot.weight, std=0.02)
        self.dropout = nn.Dropout(settings.dropout)
        self.layers = _encoder(settings, settings.width)

    def encode(self, x: Interactions, title_BLD: Tensor) -> Tensor:
        """The Transformer's output at each position."""
        length, width = title_BLD.shape[1:]
        hidden = self.dropout(title_BLD * width**0.5 + self.slot.weight[:length])
        user: Tensor = self.layers(hidden, _causal(hidden), is_causal=True)
        return user


class TransAct(TitleBaseline):
    """Pinterest's TransAct (arXiv 2306.00248), as a model of the next title among all.

    The original ranks a few candidates: it joins each candidate's vector to every action of the
    sequence, encodes the sequence once per candidate without a causal mask, and feeds the K latest
    outputs and the maximum of all to a ranking network. To rank every title, and to learn from
    every position of a window in one pass, three things differ here: titles are scored by a dot
    product with the projected outputs instead of being joined to the input (the original's own
    option `concat_candidate_emb=False`), attention is causal, and the maximum runs over what came
    so far. Title vectors are learned, not given. The random time mask, which trades accuracy for
    variety, is left out. As in the original there are no positions but those of the K latest.
    """

    def __init__(self, settings: TransActSettings, domain: Domain) -> None:
        super().__init__(domain, settings.width)
        width = settings.width + settings.action_width
        self.action = nn.Embedding(domain.actions, settings.action_width)
        self.dropout = nn.Dropout(settings.dropout)
        self.layers = _encoder(settings, width)
        self.head = _LatestAndHighest(settings.latest, width, settings.width)

    def encode(self, x: Interactions, title_BLD: Tensor) -> Tensor:
        """The head's output at each position, from the Transformer's outputs up to there."""
        scaled = title_BLD * title_BLD.shape[-1] ** 0.5
        hidden = self.dropout(torch.cat([scaled, self.action(x.action_BL)], dim=-1))
        user: Tensor = self.head(self.layers(hidden, _causal(hidden), is_causal=True))
        return user


class MetadataBaseline(nn.Module):
    """The sequence model of another baseline, given all that FM-Intent is given.

    Title vectors with genres, kind and period of release; as input also action type, device,
    watched share, gap and age of the title; attention placed by relative time and order. All of it
    is FM-Intent's own code: of `FMIntent` without intents the item stage alone is another.
    """

    def __init__(self, settings: WithMetadata, sequences: Sequences) -> None:
        super().__init__()
        of = settings.of
        architecture = Architecture(
            width=of.width,
            heads=of.heads,
            short_layers=0,
            item_layers=0,
            intents="none",
            dropout=of.dropout,
            recall=False,
            target_time=settings.target_time,
        )
        self.domain = sequences.domain
        self.frame = FMIntent(architecture, sequences.domain, sequences.table)
        inputs = cast("nn.Linear", self.frame.item.inlet[0]).in_features
        self.frame.item = of.stage(inputs, architecture)

    def titles(self) -> Tensor:
        """Title vectors `[T, D]`."""
        return self.frame.titles()

    def candidates(self, titles_TD: Tensor) -> Tensor:
        """The vectors `[V, D]` of the titles that are scored."""
        return self.frame.candidates(titles_TD)

    def forward(
        self,
        x: Interactions,
        titles_TD: Tensor,
        *,
        newest_only: bool = False,
        asked_ms_BL: Tensor | None = None,
    ) -> Encoded:
        """As `FMIntent.forward`, without intents."""
        encoded: Encoded = self.frame(
            x, titles_TD, newest_only=newest_only, asked_ms_BL=asked_ms_BL
        )
        return encoded


class _SASRecStage(Stage):
    def __init__(
        self, settings: SASRecSettings | TransActSettings, inputs: int, architecture: Architecture
    ) -> None:
        super().__init__(inputs, 0, architecture)
        self.encoder = _encoder(settings, settings.width, on_inputs=False)
        self.head: nn.Module = nn.Identity()

    def forward(
        self,
        x: Tensor,
        bias_BHQK: Tensor,
        read_B: Tensor | None = None,
        keep: Keep | None = None,
        asked: Asked | None = None,
    ) -> Tensor:
        del keep  # a baseline is not served
        hidden = self.inlet(x)
        if asked is not None:
            # To all layers, which a network that is served incrementally can't afford.
            hidden, bias_BHQK = hidden + asked.vector_BLD, asked.bias_BHQK
        user: Tensor = self.head(self.outlet(self.encoder(hidden, bias_BHQK.flatten(0, 1))))
        return user if read_B is None else at(user, read_B)


class _TransActStage(_SASRecStage):
    def __init__(self, settings: TransActSettings, inputs: int, architecture: Architecture) -> None:
        super().__init__(settings, inputs, architecture)
        self.head = _LatestAndHighest(settings.latest, settings.width, settings.width)


Baseline = TitleBaseline | MetadataBaseline


class _LatestAndHighest(nn.Module):
    """TransAct's output: the latest positions side by side, and the maximum of all so far."""

    def __init__(self, latest: int, width: int, out: int) -> None:
        super().__init__()
        self.latest = latest
        self.highest = nn.Linear(width, width)
        self.out = nn.Linear((1 + latest) * width, out)

    def forward(self, hidden_BLE: Tensor) -> Tensor:
        length = hidden_BLE.shape[1]
        before = functional.pad(hidden_BLE, (0, 0, self.latest - 1, 0))
        latest = [before[:, at : at + length] for at in range(self.latest)]
        highest = self.highest(hidden_BLE.cummax(dim=1).values)
        out: Tensor = self.out(torch.cat([highest, *latest], dim=-1))
        return out


def _encoder(
    settings: SASRecSettings | TransActSettings, width: int, *, on_inputs: bool = True
) -> nn.TransformerEncoder:
    """A pre-norm encoder.

    Args:
        settings: of the baseline.
        width: of its inputs and outputs.
        on_inputs: whether it is all there is between inputs and head; else it is inside a `Stage`.
    """
    layer = nn.TransformerEncoderLayer(
        width,
        settings.heads,
        dim_feedforward=width * 4,
        dropout=settings.dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
        # In evaluation torch's fast path takes a mask of real numbers, such as a stage's, for a
        # boolean one (pytorch/pytorch#118628). It isn't taken by layers without biases.
        bias=on_inputs,
    )
    norm = nn.LayerNorm(width) if on_inputs else None
    return nn.TransformerEncoder(layer, settings.layers, norm, enable_nested_tensor=False)


def _causal(hidden_BLE: Tensor) -> Any:
    return nn.Transformer.generate_square_subsequent_mask(
        hidden_BLE.shape[1], device=hidden_BLE.device
    )
