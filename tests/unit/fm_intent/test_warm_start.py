"""A training that begins where a version ended."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fm_intent.served.network import FIRST_ROW, Architecture, FMIntent
from fm_intent.warm_start import warm_start
from stream.domain.heads import HEADS
from stream.domain.version_labels import BUILT_IN, VersionLabels
from stream.exceptions import WarmStartError
from tests.unit.fm_intent import tiny

GENRE = next(number for number, head in enumerate(HEADS) if head.name == "genre")
ARCHITECTURE = Architecture(width=16, hidden=24)


def fresh(architecture: Architecture = ARCHITECTURE) -> FMIntent:
    data = tiny.sequences()
    torch.manual_seed(9)
    return FMIntent(architecture, data.domain, data.table)


def test_a_version_of_the_same_labels_and_titles_is_taken_over_whole() -> None:
    model, before = fresh(), tiny.network(tiny.sequences())
    shares = warm_start(model, BUILT_IN, before, BUILT_IN)
    assert (shares.titles, shares.labels) == (1, 1)
    for name, weight in before.named_parameters():
        assert torch.equal(dict(model.named_parameters())[name], weight), name


def test_labels_are_found_again_by_their_names() -> None:
    model, before = fresh(), tiny.network(tiny.sequences())
    turned = VersionLabels(
        genres=BUILT_IN.genres[::-1], kinds=BUILT_IN.kinds[::-1], devices=BUILT_IN.devices[::-1]
    )
    warm_start(model, turned, before, BUILT_IN)
    assert torch.equal(model.genres.weight, before.genres.weight.flip(1))
    assert torch.equal(model.device.weight, before.device.weight.flip(0))
    assert torch.equal(model.kind.weight[1:], before.kind.weight[1:].flip(0))
    assert torch.equal(model.kind.weight[0], before.kind.weight[0])
    heads, heads_before = model.heads[str(GENRE)], before.heads[str(GENRE)]
    assert torch.equal(heads.weight, heads_before.weight.flip(0))
    assert torch.equal(heads.bias, heads_before.bias.flip(0))


def test_what_the_version_did_not_know_begins_anew() -> None:
    model, before = fresh(), tiny.network(tiny.sequences())
    untrained = model.title.weight[-1].clone()
    before.hash_T[FIRST_ROW + before.domain.vocabulary - 1] = 1
    own = VersionLabels(genres=("opera", *BUILT_IN.genres[1:]))
    new_genre = model.genres.weight[:, 0].clone()
    shares = warm_start(model, own, before, BUILT_IN)
    assert 0 < shares.titles < 1
    assert 0 < shares.labels < 1
    assert torch.equal(model.title.weight[-1], untrained)
    assert torch.equal(model.genres.weight[:, 0], new_genre)
    assert torch.equal(model.title.weight[:-1], before.title.weight[:-1])


def test_another_network_is_refused() -> None:
    with pytest.raises(WarmStartError, match="another network"):
        warm_start(
            fresh(replace(ARCHITECTURE, item_layers=3)),
            BUILT_IN,
            tiny.network(tiny.sequences()),
            BUILT_IN,
        )
