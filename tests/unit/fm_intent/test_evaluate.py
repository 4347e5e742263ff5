from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from fm_intent import ranking_metrics
from fm_intent.baselines import Popularity
from fm_intent.data.dataset import Sequences
from fm_intent.evaluate import NetworkPredictor, evaluate, judge, next_title_ranks
from fm_intent.served.network import FIRST_ROW, UNKNOWN_DAY, Architecture
from stream.domain.heads import HEADS
from stream.domain.labels import ACTIONS
from tests.unit.fm_intent import tiny

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fm_intent.data.dataset import Context

DATA = tiny.sequences()
CONTEXTS = DATA.contexts("test", 64, "served")
LAST = DATA.last_contexts(64, "served")


class Knowing:
    """Says what it is told, by the place of the held-out interaction."""

    def __init__(self, titles: NDArray[np.int64], heads: tuple[Any, ...] = (None,) * 4) -> None:
        self._titles, self._heads = titles, heads

    def scores(self, sequences: Sequences, contexts: Context) -> NDArray[np.float32]:
        one_hot = np.eye(sequences.domain.vocabulary, dtype=np.float32)
        return 20 * one_hot[self._titles[contexts.end]]

    def intents(
        self, sequences: Sequences, contexts: Context
    ) -> tuple[NDArray[np.float32] | None, ...]:
        del sequences
        return tuple(None if head is None else head[contexts.end] for head in self._heads)


def all_titles(data: Sequences) -> NDArray[np.int64]:
    return np.clip(data.row - FIRST_ROW, 0, data.domain.vocabulary - 1)


def oracle_heads(data: Sequences) -> tuple[NDArray[np.float32], ...]:
    at = np.arange(len(data.row))
    profile = data.profile_of(at)
    everything = CONTEXTS._replace(profile=profile, start=data.columns.offset[profile], end=at)
    labels = (one[:, 0] for one in data.intents(everything))
    return tuple(
        label.numpy()
        if head.several
        else np.eye(len(head.labels), dtype=np.float32)[label.clamp(min=0)]
        for head, label in zip(HEADS, labels, strict=True)
    )


def test_a_model_that_knows_the_future_is_perfect() -> None:
    judged = judge(Knowing(all_titles(DATA), oracle_heads(DATA)), DATA, window=64, crops="served")
    report = judged.report
    assert (judged.rank == 0).all()
    assert report["hr10"] == report["ndcg10"] == report["mrr"] == report["recall100"] == 1.0
    assert report["ci95"]["ndcg10"] == [1.0, 1.0]
    intents = report["intents"]
    assert intents["genre"]["map"] == intents["genre"]["hit1"] == 1.0
    for name in ("action", "kind", "release_age"):
        assert intents[name]["accuracy"] == 1.0
        assert intents[name]["commonest_accuracy"] < 1.0
        assert not intents[name]["through_titles"]


def test_the_order_in_which_contexts_are_asked_does_not_matter() -> None:
    late = all_titles(DATA)
    late[CONTEXTS.end[::2]] = (late[CONTEXTS.end[::2]] + 1) % DATA.domain.vocabulary
    judged = judge(Knowing(late), DATA, window=64, crops="served")
    assert (judged.rank[::2] > 0).all()
    assert (judged.rank[1::2] == 0).all()
    assert judged.profile_id.tolist() == DATA.columns.profile_id[CONTEXTS.profile].tolist()


def test_plays_are_told_apart_and_each_counts_once() -> None:
    report = judge(Popularity(DATA), DATA, window=64, crops="served").report
    strata = report["by_action"]
    assert set(strata) <= {"discover", "continue", "rewatch", "just-opened"}
    assert len(strata) > 2
    assert sum(one["profiles"] for one in strata.values()) == report["profiles"]
    opened = DATA.just_opened(CONTEXTS)
    assert strata["just-opened"]["profiles"] == opened.sum() > 0
    mean = sum(one["profiles"] * one["ndcg10"] for one in strata.values()) / report["profiles"]
    assert mean == pytest.approx(report["ndcg10"])


def test_an_intent_is_held_against_the_commonest_class_and_the_newest_interaction() -> None:
    report = judge(
        Knowing(all_titles(DATA), oracle_heads(DATA)), DATA, window=64, crops="served"
    ).report["intents"]["action"]
    came = DATA.columns.action[LAST.end]
    before = DATA.columns.action[LAST.end - 1]
    assert report["newest_accuracy"] == pytest.approx((came == before).mean())
    assert report["commonest_accuracy"] == pytest.approx(np.bincount(came).max() / len(came))


def test_a_label_that_is_not_known_is_not_judged() -> None:
    judged = judge(Knowing(all_titles(DATA), oracle_heads(DATA)), DATA, window=64, crops="served")
    searches = DATA.columns.action[LAST.end] == ACTIONS.index("search")
    assert searches.any()
    np.testing.assert_array_equal(np.isnan(judged.intents["kind"]), searches)
    assert not np.isnan(judged.intents["action"]).any()


def test_a_model_without_heads_is_judged_by_what_its_titles_are() -> None:
    plays = Sequences(tiny.columns(browsing=False), tiny.catalogue())
    last = plays.last_contexts(64, "served")
    known = plays.table.release_day_T.numpy()[plays.row[last.end]] != UNKNOWN_DAY
    intents = judge(Knowing(all_titles(plays)), plays, window=64, crops="served").report["intents"]
    assert "action" not in intents
    assert intents["kind"] == intents["kind"] | {"accuracy": 1.0, "through_titles": True}
    assert intents["genre"]["map"] == intents["genre"]["hit1"] == 1.0
    day = plays.columns.start_ms // 86_400_000
    same_day = day[last.end] == day[last.end - 1]
    assert (known & ~same_day).any()
    assert intents["release_age"]["accuracy"] > 0.9


def test_seen_titles_say_nothing_of_the_next_intent_where_nothing_is_played_twice() -> None:
    class Repeating(Knowing):
        def scores(self, sequences: Sequences, contexts: Context) -> NDArray[np.float32]:
            return sequences.seen(contexts) * np.float32(50) + super().scores(sequences, contexts)

    once = Sequences(tiny.columns(browsing=False), tiny.catalogue())
    once.domain = replace(once.domain, repeats=False)
    last = once.last_contexts(64, "served")
    new = ~once.seen(last)[np.arange(len(last.end)), once.row[last.end] - FIRST_ROW]
    judged = judge(Repeating(all_titles(once)), once, window=64, crops="served")
    assert new.any()
    assert (judged.intents["kind"][new] == 1).all()


def test_a_network_without_heads_and_one_with_are_judged_by_the_same_code() -> None:
    for how in ("none", "multitask", "hierarchical"):
        model = tiny.network(DATA, Architecture(width=16, hidden=24, intents=how))
        intents = evaluate(model, DATA, window=64, crops="served")["intents"]
        assert {head["through_titles"] for head in intents.values()} == {how == "none"}
        assert ("action" in intents) == (how != "none")


def test_an_intent_that_the_data_can_not_teach_is_not_judged() -> None:
    plays = tiny.sequences(browsing=False, kinds=False)
    intents = judge(Popularity(plays), plays, window=64, crops="served").report["intents"]
    assert {"genre", "release_age"} <= set(intents)
    assert not {"action", "kind"} & set(intents)


def test_popularity_ranks_by_plays() -> None:
    rank = next_title_ranks(Popularity(DATA), DATA, CONTEXTS)
    plays = DATA.popularity()
    targets = DATA.targets(CONTEXTS)
    np.testing.assert_array_equal(rank, [(plays >= plays[target]).sum() - 1 for target in targets])


@pytest.mark.parametrize("recalls", [False, True])
def test_a_ranker_scores_by_the_dot_product_of_user_and_title_and_what_is_recalled(
    recalls: bool,
) -> None:
    model = tiny.network(DATA, Architecture(width=16, hidden=24, recall=recalls))
    with torch.inference_mode():
        titles, x = model.titles(), DATA.windows(CONTEXTS)
        encoded = model(x, titles, newest_only=True)
        wanted = encoded.user_BLD[:, 0] @ model.candidates(titles).T
        if recalls:
            for row, (recalled, seen) in enumerate(
                zip(encoded.recall_BLK, x.title_BL, strict=True)
            ):
                for gain, title in zip(recalled[0], seen.tolist(), strict=True):
                    if gain:
                        wanted[row, title - FIRST_ROW] += gain
    found = next_title_ranks(NetworkPredictor(model, "cpu"), DATA, CONTEXTS)
    np.testing.assert_array_equal(
        found, ranking_metrics.ranks(wanted.numpy(), DATA.targets(CONTEXTS))
    )


@pytest.mark.parametrize("told", [False, True])
def test_only_a_network_that_is_told_knows_when_the_held_out_play_was(told: bool) -> None:
    later = DATA.columns.start_ms.copy()
    later[CONTEXTS.end] += 1_000 * tiny.HOUR_MS
    postponed = Sequences(DATA.columns._replace(start_ms=later), tiny.catalogue())
    model = tiny.network(DATA, Architecture(width=16, hidden=24, target_time=told))
    one, other = (
        NetworkPredictor(model, "cpu").scores(data, CONTEXTS) for data in (DATA, postponed)
    )
    assert np.allclose(one, other) is not told
