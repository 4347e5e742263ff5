"""Experiments by name: a model, its training and its window, each one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final, Literal

from fm_intent.baselines import (
    Baseline,
    GRUSettings,
    SASRecSettings,
    TransActSettings,
    WithMetadata,
)
from fm_intent.data.dataset import Sequences
from fm_intent.served.network import Architecture, FMIntent
from stream.exceptions import DataUnusableError, UnknownExperimentError


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        window: interactions of a window at most.
        crops: which windows titles are predicted from; see `Sequences.crops`.
        random_cuts: whether training cuts whole histories into windows at random places, anew in
            each epoch, instead of taking the windows of `crops`.
        exclude_seen: whether titles in the window leave the softmax in training, as they do in
            answers, where titles are never played twice.
        epochs: at most.
        round_batches: optimiser steps between validations, at most; an epoch's end is always one.
        patience: rounds without a better validation NDCG@10 before training stops.
        batch: interactions of a batch at most, padding included.
        learning_rate: after warm-up.
        warmup_steps: over which the rate rises linearly.
        weight_decay: of AdamW.
        average: decay per step of the moving average of weights, which is what is validated and
            kept.
        intent_weight: λ, of the summed intent losses against the item loss.
        validation_profiles: how many profiles validation ranks, drawn by the seed; None: all.
    """

    window: int = 64
    crops: Literal["served", "recent"] = "served"
    random_cuts: bool = False
    exclude_seen: bool = False
    epochs: int = 200
    round_batches: int = 1_000_000
    patience: int = 10
    batch: int = 8192
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    average: float = 0.99
    intent_weight: float = 0.2
    validation_profiles: int | None = None


Model = Architecture | GRUSettings | SASRecSettings | TransActSettings | WithMetadata


@dataclass(frozen=True)
class Experiment:
    """A model and its training."""

    model: Model
    training: Training

    @property
    def target_time(self) -> bool:
        """Whether the network is told when the next play happens."""
        return isinstance(self.model, Architecture | WithMetadata) and self.model.target_time

    def build(self, sequences: Sequences) -> FMIntent | Baseline:
        """The untrained network for this data.

        Raises:
            DataUnusableError: when the data can't teach what the experiment needs.
        """
        if not isinstance(self.model, Architecture):
            return self.model.build(sequences, self.training.window)
        try:
            return FMIntent(self.model, sequences.domain, sequences.table)
        except ValueError as error:
            raise DataUnusableError(str(error)) from error


def variant(name: Literal["v0", "v1", "v2", "v3"], full: Architecture) -> Architecture:
    """An ablation of `full` at equal depth, named as in the paper.

    `v0` has no intents, `v1` predicts them beside the titles, `v2` feeds them into the item stage,
    `v3` adds the short-term Transformer.
    """
    depth = full.short_layers + full.intent_layers + full.item_layers
    if name == "v3":
        return full
    if name == "v2":
        return replace(full, short_layers=0, item_layers=depth - full.intent_layers)
    return replace(
        full,
        short_layers=0,
        item_layers=depth,
        intents="none" if name == "v0" else "multitask",
    )


def _compared(full: Architecture, training: Training) -> dict[str, Experiment]:
    """What a table of results compares, all trained alike.

    Of `full` its ablations, and baselines. Those that are given its metadata are given its depth,
    too; the others are as deep as their papers have them.
    """
    depth = full.short_layers + full.intent_layers + full.item_layers
    sasrec = WithMetadata(SASRecSettings(dropout=full.dropout, layers=depth))
    transact = WithMetadata(TransActSettings(dropout=full.dropout, layers=depth))
    models: dict[str, Model] = {
        "gru": GRUSettings(dropout=full.dropout),
        "sasrec": SASRecSettings(dropout=full.dropout),
        "transact": TransActSettings(dropout=full.dropout),
        "sasrec-metadata": sasrec,
        "sasrec-metadata-target-time": replace(sasrec, target_time=True),
        "transact-metadata": transact,
        "transact-metadata-target-time": replace(transact, target_time=True),
        "v0": variant("v0", full),
        "v1": variant("v1", full),
        "v2": variant("v2", full),
        "fm-intent": full,
        "fm-intent-target-time": replace(full, target_time=True),
    }
    return {name: Experiment(model, training) for name, model in models.items()}


_SERVED: Final = Architecture()
_FULL: Final = Architecture(item_layers=4, dropout=0.2)
_WIDE: Final = replace(_FULL, width=128, heads=4, hidden=256, dropout=0.3)
_ML_1M: Final = Training(
    window=200, crops="recent", batch=4096, average=0.997, patience=3, validation_profiles=2000
)

_RATINGS: Final = replace(
    _ML_1M, epochs=20, random_cuts=True, exclude_seen=True, learning_rate=2e-3
)
_SIMULATED: Final = Training(
    epochs=20, batch=4096, learning_rate=2e-3, average=0.997, patience=3, validation_profiles=2000
)

_TRAININGS: Final = {
    "ml-1m": _RATINGS,
    "ml-100k": replace(_RATINGS, batch=2048),
    "movietweetings": replace(_RATINGS, batch=2048),
    "simulator": _SIMULATED,
    "simulator-null": _SIMULATED,
}
"""Training by source, the same for all models, with the same budget of epochs."""

EXPERIMENTS: Final[dict[str, Experiment]] = {
    "demo": Experiment(
        _SERVED,
        Training(
            exclude_seen=True,
            round_batches=120,
            patience=4,
            batch=2048,
            learning_rate=5e-3,
            warmup_steps=30,
            validation_profiles=1500,
        ),
    ),
    "served": Experiment(
        _FULL,
        Training(exclude_seen=True, batch=4096, learning_rate=2e-3, average=0.997),
    ),
    **{
        f"{source}-{name}": experiment
        for source, training in _TRAININGS.items()
        for name, experiment in _compared(_FULL, training).items()
    },
    # What it is worth to point at the window.
    **{
        f"{source}-fm-intent-no-recall": Experiment(replace(_FULL, recall=False), _SIMULATED)
        for source in ("simulator", "simulator-null")
    },
    # What width is worth, trained until validation has long stopped rising.
    **{
        f"ml-1m-{name}-wide": Experiment(model, replace(_RATINGS, epochs=60, patience=6))
        for name, model in (
            ("fm-intent", _WIDE),
            ("v0", variant("v0", _WIDE)),
            ("fm-intent-target-time", replace(_WIDE, target_time=True)),
        )
    },
    # What a service's own model is held against.
    "service-sasrec": Experiment(
        SASRecSettings(), Training(exclude_seen=True, batch=4096, learning_rate=2e-3, average=0.997)
    ),
    # As it was published, so that its figures can be held against others'.
    "ml-1m-sasrec-published": Experiment(SASRecSettings(), replace(_ML_1M, patience=5)),
}
"""`demo` trains in minutes; `served` takes its time over the same windows; the others are those of
the tables of results, by source: those of ratings follow a published protocol, with windows of 200.
"""


def experiment_named(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        UnknownExperimentError: when there is none.
    """
    if name not in EXPERIMENTS:
        near = get_close_matches(name, EXPERIMENTS, 3) or ("served", "demo")
        raise UnknownExperimentError(
            f"there is no experiment {name!r}; did you mean {' or '.join(near)}?"
        )
    return EXPERIMENTS[name]
