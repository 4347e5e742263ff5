"""Begin a training where another version's ended, as far as both know the same.

Labels and titles are matched by their names, never by their numbers: what only the new version
knows begins as it always does.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fm_intent.served.network import FIRST_ROW, FMIntent
from stream.domain.heads import HEADS
from stream.exceptions import WarmStartError

if TYPE_CHECKING:
    from stream.domain.version_labels import VersionLabels


@dataclass(frozen=True, slots=True)
class CarriedOver:
    """What of a network began as another's.

    Attributes:
        titles: of the titles that are scored.
        labels: of the genres, kinds and devices.
    """

    titles: float
    labels: float


def warm_start(
    model: FMIntent, labels: VersionLabels, before: FMIntent, labels_before: VersionLabels
) -> CarriedOver:
    """Set the weights of `model` to those of `before` where both mean the same, in place.

    Args:
        model: untrained.
        labels: its labels.
        before: a trained one.
        labels_before: its labels.

    Returns:
        The shares that were found again.

    Raises:
        WarmStartError: when the two aren't of one architecture.
    """
    if model.architecture != before.architecture or model.predicted != before.predicted:
        raise WarmStartError(
            "the version to begin from is of another network, or predicts other intents; train "
            "without --init, or with the experiment that it was trained with"
        )
    names, names_before = _names(model, labels), _names(before, labels_before)
    weights = dict(before.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            axis = _axis(name)
            if axis is None:
                weight.copy_(weights[name])
                continue
            dimension, of = axis
            here, there = _found_again(names[of], names_before[of])
            weight.index_copy_(dimension, here, weights[name].index_select(dimension, there))
    counted = ("genres", "kinds", "devices")
    found = sum(len(_found_again(names[of], names_before[of])[0]) for of in counted)
    titles = len(_found_again(names["titles"], names_before["titles"])[0]) - FIRST_ROW
    return CarriedOver(
        titles / model.domain.vocabulary, found / sum(len(names[of]) for of in counted)
    )


def _names(model: FMIntent, labels: VersionLabels) -> dict[str, Sequence[Hashable]]:
    """What stands at each place of the axes that a service's data decide."""
    hashes = model.hash_T[: FIRST_ROW + model.domain.vocabulary].tolist()
    return {
        "titles": ["no title", "unknown", *hashes[FIRST_ROW:]],
        "genres": labels.genres,
        "kinds": labels.kinds,
        "kinds and none": ["", *labels.kinds],
        "devices": labels.devices,
    } | {head.name: labels.of_head(head) for head in HEADS}


def _axis(name: str) -> tuple[int, str] | None:
    """The axis of a weight that a service's data decide, and what stands along it."""
    module, _, kind = name.partition(".")
    if module in ("heads", "project"):
        head = HEADS[int(kind.partition(".")[0])].name
        if module == "heads":
            return 0, head
        return (1, head) if name.endswith("weight") else None
    return {
        "title.weight": (0, "titles"),
        "title_genres.weight": (1, "genres"),
        "genres.weight": (1, "genres"),
        "title_kind.weight": (0, "kinds and none"),
        "kind.weight": (0, "kinds and none"),
        "device.weight": (0, "devices"),
    }.get(name)


def _found_again(
    names: Sequence[Hashable], before: Sequence[Hashable]
) -> tuple[torch.Tensor, torch.Tensor]:
    place = {name: number for number, name in enumerate(before)}
    pairs = [(here, place[name]) for here, name in enumerate(names) if name in place]
    both = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return both[:, 0], both[:, 1]
