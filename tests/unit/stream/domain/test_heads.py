from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.domain.feature_row import PUBLISHED
from stream.domain.heads import HEADS, Entries, Head, OfTitle
from stream.domain.labels import GENRES, RELEASE_AGE_EDGES_DAYS, RELEASE_AGES
from tests.unit.fm_intent import tiny


def shares(name: str, entries: Entries) -> NDArray[np.float32]:
    (head,) = (one for one in HEADS if one.name == name)
    assert isinstance(head.label, OfTitle)
    return head.label.shares(entries)


def test_heads_keep_their_place_and_new_ones_come_behind() -> None:
    assert [head.name for head in HEADS][:4] == ["action", "genre", "kind", "release_age"]


def test_no_two_published_fields_have_one_name() -> None:
    assert len(set(PUBLISHED)) == len(PUBLISHED)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_a_head_has_labels_to_choose_from(head: Head) -> None:
    assert len(set(head.labels)) == len(head.labels) > 1


@pytest.mark.parametrize(
    "head", [one for one in HEADS if isinstance(one.label, OfTitle)], ids=lambda head: head.name
)
def test_shares_of_a_title_are_one_for_each_label_and_sum_to_one_or_are_unknown(head: Head) -> None:
    found = shares(head.name, tiny.catalogue())
    assert found.shape == (tiny.TITLES, len(head.labels))
    assert found.dtype == np.float32
    assert set(found.sum(1).round(5).tolist()) <= {0.0, 1.0}
    assert head.several or set(found.flatten().tolist()) <= {0.0, 1.0}


def test_several_genres_share_a_title_and_a_title_of_no_kind_has_no_share() -> None:
    entries = replace(tiny.catalogue(), kind=np.zeros(tiny.TITLES, np.int64))
    entries.genres[0] = 0
    entries.genres[0, [GENRES.index("war"), GENRES.index("drama")]] = 1
    assert shares("genre", entries)[0, GENRES.index("war")] == 0.5
    assert not shares("kind", entries).any()


def test_ages_have_an_edge_between_any_two() -> None:
    assert len(RELEASE_AGES) == len(RELEASE_AGE_EDGES_DAYS) + 1
