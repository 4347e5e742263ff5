from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stream.domain.intent_map import CENTRES_FILE, MAP_FILE, IntentMap, Traits, read_map
from stream.exceptions import NoClustersError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def centres_of(seed: int, count: int = 6, width: int = 8) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def traits(label: str) -> Traits:
    one = {"label": label, "share": 0.5, "share_of_all": 0.25}
    return Traits.model_validate({"likeliest": one, "distinctive": {**one, "label": f"{label}!"}})


@given(st.integers(0, 1000))
def test_a_centre_lies_where_its_embedding_is_projected_to(seed: int) -> None:
    centres = centres_of(seed)
    drawn = IntentMap.of(centres)
    np.testing.assert_allclose(drawn.places(centres), [one.at for one in drawn.clusters], atol=1e-6)


@given(st.integers(0, 1000))
def test_no_plane_keeps_more_of_the_distances_between_centres(seed: int) -> None:
    centres = centres_of(seed)
    drawn = IntentMap.of(centres)
    other, _ = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(8, 2)))
    spread = ((centres - centres.mean(0)) @ other).var(0).sum()
    assert np.array([one.at for one in drawn.clusters]).var(0).sum() >= spread - 1e-6


@given(st.integers(0, 1000), st.permutations(range(6)))
def test_the_axes_do_not_depend_on_the_order_of_the_centres(seed: int, order: list[int]) -> None:
    centres = centres_of(seed)
    np.testing.assert_allclose(
        IntentMap.of(centres).axes, IntentMap.of(centres[order]).axes, atol=1e-4
    )


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_centres_for_a_plane_still_have_a_place(count: int) -> None:
    drawn = IntentMap.of(centres_of(0, count))
    assert [one.at[1] for one in drawn.clusters] == [0.0] * count


def test_a_map_is_read_as_it_was_written(tmp_path: Path) -> None:
    drawn = IntentMap.of(centres_of(1, 2), [7, 3], [{"action": traits("open")}, {}])
    (tmp_path / MAP_FILE).write_text(drawn.model_dump_json())
    assert read_map(tmp_path) == drawn


def test_a_cluster_is_described_by_what_sets_it_apart_where_several_labels_apply() -> None:
    told = {"action": traits("open"), "genre": traits("drama")}
    assert IntentMap.of(centres_of(1, 1), [1], [told]).clusters[0].description == "open, drama!"


def test_the_map_of_an_older_version_is_made_of_its_centres(tmp_path: Path) -> None:
    centres = centres_of(2, 10, 64)
    torch.save(torch.from_numpy(centres), tmp_path / CENTRES_FILE)
    assert read_map(tmp_path) == IntentMap.of(centres)


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_a_version_without_clusters_says_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / CENTRES_FILE).write_bytes(content)
    with pytest.raises(NoClustersError, match="train a hierarchical version"):
        read_map(tmp_path)
