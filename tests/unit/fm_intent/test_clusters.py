from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from fm_intent.clusters import (
    CLUSTERS,
    describe,
    find_centres,
    found_clusters,
    intent_embeddings,
)
from fm_intent.data import dataset
from fm_intent.evaluate import exported
from fm_intent.export import export
from stream.domain.intent_map import read_map
from stream.domain.labels import ACTIONS
from stream.exceptions import NoClustersError
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.test_export import manifest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fm_intent.data.dataset import Sequences


def blobs(sizes: list[int]) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    middle = rng.normal(0, 20, (len(sizes), 8))
    return np.concatenate(
        [rng.normal(at, 0.5, (size, 8)) for at, size in zip(middle, sizes, strict=True)]
    ).astype(np.float32)


def nearest(embeddings: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.intp]:
    return np.linalg.norm(embeddings[:, None] - centres, axis=2).argmin(1)


def test_clusters_are_found_and_numbered_by_size() -> None:
    sizes = [30, 90, 20, 70, 50, 40, 60, 80, 110, 100]
    embeddings = blobs(sizes)
    centres = find_centres(embeddings, seed=0)
    assert centres.shape == (CLUSTERS, 8)
    assert centres.dtype == np.float32
    found = np.bincount(nearest(embeddings, centres))
    assert found.tolist() == sorted(sizes, reverse=True)


def test_the_same_seed_finds_the_same_centres() -> None:
    embeddings = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    np.testing.assert_array_equal(find_centres(embeddings, 3), find_centres(embeddings, 3))


def test_fewer_embeddings_than_clusters_have_a_cluster_each() -> None:
    assert len(find_centres(blobs([1, 1, 1]), seed=0)) == 3


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that stands for the made-up source."""
    data = single_minded()
    monkeypatch.setattr("fm_intent.evaluate.load", lambda _: data)
    monkeypatch.setattr("fm_intent.evaluate.data_sha256", lambda _: "0" * 64)
    return tmp_path / "data" / "made-up"


def single_minded() -> Sequences:
    """Profiles that do nothing but one thing each."""
    c = tiny.columns(profiles=60, longest=40)
    profile = np.repeat(np.arange(60), np.diff(c.offset))
    action = np.where(profile % 2, ACTIONS.index("discover"), ACTIONS.index("trailer"))
    plays = np.arange(len(action)) - c.offset[profile] < 3
    action = np.where(plays, ACTIONS.index("discover"), action)
    return dataset.Sequences(c._replace(action=action.astype(np.int8)), tiny.catalogue())


def version(model_repo: Path, *, with_centres: bool = True) -> None:
    data = single_minded()
    model = tiny.network(data)
    clusters = None
    if with_centres:
        clusters = found_clusters(model, data, data.last_contexts(64, "served"), seed=0)
    made = replace(manifest(), config={"training": {"crops": "served"}})
    export(model, made, tiny.windows(data), model_repo, clusters)


def test_each_cluster_is_described_by_what_came_next(source: Path, tmp_path: Path) -> None:
    version(tmp_path / "models")
    results = tmp_path / "clusters.json"
    report = describe(source, tmp_path / "models", results, command="make it")
    assert json.loads(results.read_text()) == report
    it = exported(source, tmp_path / "models")
    contexts = it.sequences.last_contexts(64, "served")
    came = it.sequences.columns.action[contexts.end]
    assert sum(one["size"] for one in report["clusters"]) == report["windows"] == len(came)
    weighted = sum(one["size"] * one["action"]["likeliest"]["share"] for one in report["clusters"])
    assert weighted >= np.bincount(came).max() - 1
    overall = (came == ACTIONS.index("trailer")).mean()
    told = [
        head["share_of_all"]
        for one in report["clusters"]
        for head in one["action"].values()
        if head["label"] == "trailer"
    ]
    assert told == pytest.approx([overall] * len(told), abs=1e-4)
    assert told
    assert -1 <= report["silhouette"] <= 1
    assert "adjusted_rand" not in report
    assert (tmp_path / "clusters.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "clusters.md").read_text()
    assert "make it" in text
    assert text.count("\n| ") == len(report["clusters"]) + 2


def test_a_version_carries_a_map_with_what_the_report_says(source: Path, tmp_path: Path) -> None:
    version(tmp_path / "models")
    report = describe(source, tmp_path / "models", tmp_path / "clusters.json")
    mapped = read_map(tmp_path / "models" / "fm_intent" / "1")
    for told, one in zip(report["clusters"], mapped.clusters, strict=True):
        assert one.size == told["size"]
        assert one.traits["action"].model_dump() == told["action"]
        assert told["action"]["likeliest"]["label"] in one.description


def test_hidden_intents_that_are_the_clusters_agree_and_random_ones_do_not(
    source: Path, tmp_path: Path
) -> None:
    version(tmp_path / "models")
    it = exported(source, tmp_path / "models")
    contexts = it.sequences.last_contexts(64, "served")
    centres = torch.load(tmp_path / "models" / "fm_intent" / "1" / "centres.pt")
    cluster = nearest(intent_embeddings(it.model, it.sequences, contexts), centres.numpy())
    asked: list[tuple[list[str], list[int]]] = []

    def hidden(
        profile: NDArray[np.str_], start_ms: NDArray[np.int64]
    ) -> dict[str, NDArray[np.int64]]:
        asked.append((profile.tolist(), start_ms.tolist()))
        return {
            "action": (cluster + 5) % 10,
            "kind": np.random.default_rng(0).integers(10, size=len(cluster)),
        }

    report = describe(source, tmp_path / "models", tmp_path / "clusters.json", hidden=hidden)
    found = report["adjusted_rand"]
    assert found["action"]["clusters"] == 1.0
    assert abs(found["kind"]["clusters"]) < 0.1
    assert 0 < found["all"]["clusters"] < 1
    assert asked[0][0] == it.sequences.columns.profile_id[contexts.profile].tolist()
    assert asked[0][1] == it.sequences.columns.start_ms[contexts.end].tolist()


def test_a_version_without_clusters_says_what_to_do(source: Path, tmp_path: Path) -> None:
    version(tmp_path / "models", with_centres=False)
    with pytest.raises(NoClustersError, match="train a hierarchical one"):
        describe(source, tmp_path / "models", tmp_path / "clusters.json")


def test_what_the_newest_interaction_was_is_held_against_the_hidden_intents_too(
    source: Path, tmp_path: Path
) -> None:
    version(tmp_path / "models")
    data = single_minded()
    before = data.columns.action[data.last_contexts(64, "served").end - 1].astype(np.int64)
    report = describe(
        source,
        tmp_path / "models",
        tmp_path / "clusters.json",
        hidden=lambda profile, start_ms: {"action": before},
    )
    assert report["adjusted_rand"]["action"]["newest"] == 1.0
    assert report["adjusted_rand"]["action"]["clusters"] < 1.0
    assert "| *the newest interaction* | 1.000 |" in (tmp_path / "clusters.md").read_text()
