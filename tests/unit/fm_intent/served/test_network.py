from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_intent.experiments import variant
from fm_intent.served.network import (
    FIRST_ROW,
    NEVER,
    NO_ROW,
    UNKNOWN_DAY,
    UNKNOWN_ROW,
    Architecture,
    Encoded,
    FMIntent,
    Interactions,
    Layer,
    load,
    next_same,
    save,
    scores,
    title_implied_probs,
    title_labels,
)
from stream.domain.heads import INTENTS
from stream.domain.labels import hash64
from tests.unit.fm_intent import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from fm_intent.data.dataset import Sequences

DATA = tiny.sequences()
SMALL = Architecture(width=16, hidden=24, item_layers=2)
DAY_MS = 24 * tiny.HOUR_MS


def encode(model: FMIntent, x: Interactions) -> Encoded:
    with torch.inference_mode():
        return model(x, model.titles())


def one_window(length: int, seed: int = 0) -> Interactions:
    """A window of random interactions, ties in time included."""
    draw = torch.Generator().manual_seed(seed)

    def integers(high: int) -> torch.Tensor:
        return torch.randint(high, (1, length), generator=draw)

    gaps = integers(2) * integers(3 * DAY_MS)
    return Interactions(
        title_BL=integers(len(DATA.table.hash_T)),
        action_BL=integers(7),
        start_ms_BL=tiny.START_MS + gaps.cumsum(1),
        watched_share_BL=torch.rand((1, length), generator=draw) * 2 - 1,
        device_BL=integers(6),
        length_B=torch.tensor([length]),
    )


def cut(x: Interactions, start: int, end: int) -> Interactions:
    columns = [column[:, start:end] for column in x[:-1]]
    return Interactions(*columns, torch.tensor([end - start]))


def keys_and_values(model: FMIntent, x: Interactions) -> list[torch.Tensor]:
    """Those of every layer of every stage, `[B, H, L, E]` each."""
    kept: list[torch.Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    for layer in layers:
        original = layer.keys_values

        def spy(x_BLD: torch.Tensor, original: object = original) -> object:
            pair = original(x_BLD)  # type: ignore[operator]
            kept.extend(pair)
            return pair

        object.__setattr__(layer, "keys_values", spy)
    try:
        encode(model, x)
    finally:
        for layer in layers:
            object.__delattr__(layer, "keys_values")
    return kept


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), length=st.integers(2, 40), data=st.data())
def test_appending_or_rewriting_the_newest_never_changes_earlier_keys_and_values(
    seed: int, length: int, data: st.DataObject
) -> None:
    model = tiny.network(DATA, SMALL)
    x = one_window(length, seed)
    earlier = data.draw(st.integers(1, length - 1), label="interactions that stay")
    other = one_window(length, seed + 1)
    rewritten = Interactions(
        *(
            torch.cat([one[:, :earlier], another[:, earlier:]], dim=1)
            for one, another in zip(x[:-1], other[:-1], strict=True)
        ),
        x.length_B,
    )
    before = keys_and_values(model, cut(x, 0, earlier))
    assert len(before) == 2 * 4
    for after in (keys_and_values(model, x), keys_and_values(model, rewritten)):
        for one, another in zip(before, after, strict=True):
            # What they are made of is rounded to half precision, now and then to the other half.
            torch.testing.assert_close(one, another[:, :, :earlier], atol=2e-3, rtol=0)


def test_what_comes_later_never_changes_what_was_said_before() -> None:
    model = tiny.network(DATA, SMALL)
    x = one_window(30)
    whole, half = encode(model, x), encode(model, cut(x, 0, 15))
    torch.testing.assert_close(whole.user_BLD[:, :15], half.user_BLD, atol=1e-4, rtol=0)
    assert whole.recall_BLK is not None
    torch.testing.assert_close(whole.recall_BLK[:, :15, :15], half.recall_BLK, atol=1e-4, rtol=0)
    for one, other in zip(whole.intent_logits, half.intent_logits, strict=True):
        assert one is not None
        torch.testing.assert_close(one[:, :15], other, atol=1e-4, rtol=0)


def test_the_answer_for_the_newest_is_that_of_its_position() -> None:
    model = tiny.network(DATA, SMALL)
    x = tiny.windows(DATA)
    rows = torch.arange(len(x.length_B))
    whole = encode(model, x)
    with torch.inference_mode():
        newest = model(x, model.titles(), newest_only=True)
    at = x.length_B - 1
    torch.testing.assert_close(newest.user_BLD[:, 0], whole.user_BLD[rows, at])
    torch.testing.assert_close(newest.intent_BLD[:, 0], whole.intent_BLD[rows, at])
    torch.testing.assert_close(newest.attention_BLM[:, 0], whole.attention_BLM[rows, at])
    assert newest.recall_BLK is not None
    assert whole.recall_BLK is not None
    torch.testing.assert_close(newest.recall_BLK[:, 0], whole.recall_BLK[rows, at])


@given(titles=st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_each_position_knows_where_its_title_stands_next(titles: list[int]) -> None:
    found = next_same(torch.tensor([titles, titles[::-1]]))
    for row, own in zip(found.tolist(), (titles, titles[::-1]), strict=True):
        wanted = [
            next((later for later in range(at + 1, len(own)) if own[later] == title), NEVER)
            for at, title in enumerate(own)
        ]
        assert row == wanted


def test_a_titles_latest_interaction_so_far_alone_adds_to_its_score() -> None:
    model = tiny.network(DATA, SMALL)
    x = one_window(40)
    title = x.title_BL[0].tolist()
    recall = encode(model, x).recall_BLK
    assert recall is not None
    for at in range(40):
        latest = {title[key]: key for key in range(at + 1)}
        keys = {
            key
            for row, key in latest.items()
            if FIRST_ROW <= row < FIRST_ROW + DATA.domain.vocabulary
        }
        assert set(recall[0, at].nonzero()[:, 0].tolist()) == keys
    assert recall.min() == 0


def test_what_is_recalled_depends_on_when_it_is_asked_for() -> None:
    model = tiny.network(DATA, replace(SMALL, target_time=True))
    assert model.recall is not None
    with torch.no_grad():  # so that it depends on nothing but how far away each interaction is
        model.recall.query.weight.zero_()
        model.recall.query.bias.zero_()
    x = one_window(10)
    soon, late = (x.start_ms_BL + wait for wait in (0, 300 * DAY_MS))
    with torch.inference_mode():
        at_once, later = (
            model(x, model.titles(), asked_ms_BL=asked).recall_BLK for asked in (soon, late)
        )
    assert (at_once - later).abs().max() > 1e-3


def test_nothing_is_recalled_where_no_title_is_played_twice() -> None:
    data = tiny.sequences(browsing=False)
    once = FMIntent(SMALL, replace(data.domain, repeats=False), data.table)
    assert once.recall is None
    assert encode(once.eval(), tiny.windows(data)).recall_BLK is None


def test_a_window_is_answered_alike_alone_and_padded_among_others() -> None:
    model = tiny.network(DATA, SMALL)
    x = tiny.windows(DATA)
    with torch.inference_mode():
        together = model(x, model.titles(), newest_only=True).user_BLD
    for row, length in enumerate(x.length_B.tolist()):
        alone = Interactions(
            *(column[row : row + 1, :length] for column in x[:-1]), x.length_B[row : row + 1]
        )
        with torch.inference_mode():
            user = model(alone, model.titles(), newest_only=True).user_BLD
        torch.testing.assert_close(user, together[row : row + 1], atol=1e-4, rtol=0)


def test_nothing_depends_on_the_absolute_time_but_the_age_of_titles() -> None:
    model = tiny.network(DATA, SMALL)
    x = one_window(20)
    x = x._replace(title_BL=torch.full_like(x.title_BL, UNKNOWN_ROW))
    later = x._replace(start_ms_BL=x.start_ms_BL + 500 * DAY_MS)
    torch.testing.assert_close(encode(model, x).user_BLD, encode(model, later).user_BLD)


def test_the_short_term_stage_sees_one_week_and_no_more() -> None:
    model = tiny.network(DATA, SMALL)
    seen = _attended_by_the_newest(model, [8 * DAY_MS, 7 * DAY_MS + 1, 7 * DAY_MS, DAY_MS, 0])
    assert seen == [False, False, True, True, True]


def test_the_short_term_span_is_a_setting() -> None:
    model = tiny.network(DATA, replace(SMALL, short_term_s=3600))
    seen = _attended_by_the_newest(model, [DAY_MS, 2 * tiny.HOUR_MS, tiny.HOUR_MS, 0])
    assert seen == [False, False, True, True]


def _attended_by_the_newest(model: FMIntent, ages_ms: list[int]) -> list[bool]:
    assert model.short is not None
    count = len(ages_ms)
    x = one_window(count)._replace(start_ms_BL=tiny.START_MS - torch.tensor([ages_ms]))
    biases = []
    hook = model.short.register_forward_pre_hook(lambda _, inputs: biases.append(inputs[1]))
    encode(model, x)
    hook.remove()
    return (biases[0][0, 0, -1] > -torch.inf).tolist()


def test_the_time_of_the_target_moves_the_answer_at_its_position_and_nothing_else() -> None:
    model = tiny.network(DATA, replace(SMALL, target_time=True))
    x = one_window(12)
    later = x.start_ms_BL.clone()
    later[0, 7] += 9 * DAY_MS
    with torch.inference_mode():
        titles = model.titles()
        at_once = model(x, titles, asked_ms_BL=x.start_ms_BL)
        asked_later = model(x, titles, asked_ms_BL=later)
    moved = (at_once.user_BLD - asked_later.user_BLD).abs().amax(-1)[0] > 1e-4
    assert moved.nonzero().flatten().tolist() == [7]
    for one, other in zip(at_once.intent_logits, asked_later.intent_logits, strict=True):
        assert torch.equal(one, other)  # type: ignore[arg-type]


def test_a_network_that_is_not_told_the_time_of_the_target_makes_no_use_of_it() -> None:
    model = tiny.network(DATA, SMALL)
    x = one_window(12)
    with torch.inference_mode():
        titles = model.titles()
        told = model(x, titles, asked_ms_BL=x.start_ms_BL + DAY_MS)
    assert torch.equal(told.user_BLD, encode(model, x).user_BLD)


def test_a_head_without_labels_is_zero_and_has_no_attention() -> None:
    data = tiny.sequences(browsing=False, kinds=False)
    assert data.domain.trained[:4] == (False, True, False, True)
    model = tiny.network(data, SMALL)
    with torch.inference_mode():
        answer = model.answer(tiny.windows(data), model.titles(), 20)
    for intent, (name, trained) in enumerate(zip(INTENTS, data.domain.trained, strict=True)):
        total = answer.intent_probs[intent].sum(1)
        torch.testing.assert_close(total, torch.full_like(total, float(trained)), msg=name)
        assert bool((answer.attention_BM[:, intent] > 0).all()) == trained
    attention = answer.attention_BM.sum(1)
    torch.testing.assert_close(attention, torch.ones_like(attention))


def test_titles_say_of_intents_what_their_labels_are_by_their_probabilities() -> None:
    vocabulary = DATA.domain.vocabulary
    probs = torch.rand(5, vocabulary, generator=torch.Generator().manual_seed(0)).softmax(1)
    labels = title_labels(DATA.table, DATA.domain)
    model = tiny.network(DATA, SMALL)
    rows = torch.arange(FIRST_ROW, FIRST_ROW + vocabulary)
    moments = [tiny.START_MS - 5_000 * DAY_MS, tiny.START_MS, tiny.START_MS + 40 * DAY_MS]
    for now_ms in moments:
        nothing, *told = title_implied_probs(probs, torch.full((5,), now_ms), labels, DATA.domain)[
            :4
        ]
        assert nothing is None
        ages = model.release_ages(rows, torch.tensor(now_ms))
        wanted = [torch.zeros_like(one) for one in told]
        for title in range(vocabulary):
            genres = DATA.table.genres_TC[FIRST_ROW + title]
            wanted[0] += probs[:, title, None] * genres / genres.sum()
            wanted[1][:, DATA.table.kind_T[FIRST_ROW + title] - 1] += probs[:, title]
            if ages[title] < len(labels.age_edges_C) + 1:
                wanted[2][:, ages[title]] += probs[:, title]
        for one, other in zip(told, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert (wanted[2].sum(1) < 1 - 1e-3).all()  # a title has no date


def test_answers_about_intents_lie_between_the_head_and_the_titles() -> None:
    model = tiny.network(DATA, SMALL)
    x = tiny.windows(DATA)
    now_ms = x.start_ms_BL.gather(1, x.length_B[:, None] - 1)[:, 0]
    with torch.inference_mode():
        titles = model.titles()
        encoded = model(x, titles, newest_only=True)
        probs = scores(encoded, x.title_BL, model.candidates(titles)).softmax(1)
        opinions = model.opinions(encoded, probs, now_ms)
        answers = []
        for share in (0.0, 0.25, 1.0):
            model.title_share_M.fill_(share)
            answers.append(model.answer(x, titles, 20).intent_probs)
    for intent, opinion in enumerate(opinions):
        assert opinion is not None
        heads, mixed, by_titles = (answer[intent] for answer in answers)
        torch.testing.assert_close(heads, opinion.head_BC)
        if opinion.titles_BC is None:
            assert DATA.domain.told[intent] == "nothing"
            assert torch.equal(heads, by_titles)
            continue
        known = opinion.titles_BC.sum(1, keepdim=True)
        torch.testing.assert_close(by_titles, opinion.titles_BC / known)
        assert (mixed >= torch.minimum(heads, by_titles) - 1e-6).all()
        assert (mixed <= torch.maximum(heads, by_titles) + 1e-6).all()
        assert ((mixed - heads).abs().sum(1) < (mixed - by_titles).abs().sum(1)).all()
        torch.testing.assert_close(mixed.sum(1), torch.ones(len(mixed)))


def test_an_intent_that_no_likely_title_has_a_label_of_is_answered_by_its_head() -> None:
    model = tiny.network(DATA, SMALL)
    model.title_share_M.fill_(0.99)
    x = tiny.windows(DATA)
    with torch.inference_mode():
        encoded = model(x, model.titles(), newest_only=True)
        undated = torch.zeros(len(x.length_B), DATA.domain.vocabulary)
        undated[:, 0] = 1
        assert DATA.table.release_day_T[FIRST_ROW] == UNKNOWN_DAY
        ages = model.intent_probs(encoded, undated, x.start_ms_BL[:, 0])[3]
    assert encoded.intent_logits[3] is not None
    torch.testing.assert_close(ages, encoded.intent_logits[3][:, 0].softmax(-1))


def test_a_vocabulary_that_is_not_in_order_of_release_is_refused() -> None:
    table = DATA.table._replace(release_day_T=DATA.table.release_day_T.flip(0))
    with pytest.raises(ValueError, match="in order of release"):
        FMIntent(SMALL, DATA.domain, table)


def test_a_saved_network_keeps_what_titles_weigh(tmp_path: Path) -> None:
    model = tiny.network(DATA, SMALL)
    model.title_share_M[1] = 0.5
    save(model, tmp_path / "model.pt")
    assert load(tmp_path / "model.pt").title_share_M.tolist()[:4] == [0, 0.5, 0, 0]


def test_a_head_without_labels_has_no_weights() -> None:
    data = tiny.sequences(browsing=False, kinds=False)
    assert {"1", "3"} <= set(tiny.network(data, SMALL).heads)
    assert not {"0", "2"} & set(tiny.network(data, SMALL).heads)


@pytest.mark.parametrize("name", ["v0", "v1", "v2", "v3"])
def test_each_variant_is_a_setting_of_one_network(name: str) -> None:
    architecture = variant(name, SMALL)  # type: ignore[arg-type]
    model = tiny.network(DATA, architecture)
    depth = sum(isinstance(module, Layer) for module in model.modules())
    assert depth == SMALL.short_layers + SMALL.intent_layers + SMALL.item_layers
    encoded = encode(model, one_window(9))
    assert (encoded.intent_logits[0] is None) == (name == "v0")
    assert bool((encoded.intent_BLD != 0).any()) == (name in ("v2", "v3"))
    assert (model.short is not None) == (name == "v3")


def test_intents_without_a_label_to_learn_are_refused() -> None:
    domain = replace(DATA.domain, trained=(False, False, False, False))
    with pytest.raises(ValueError, match="intents='none'"):
        FMIntent(SMALL, domain, DATA.table)


def test_title_hashes_are_found_and_strangers_are_unknown() -> None:
    model = tiny.network(DATA, SMALL)
    hashes = torch.tensor([0, hash64("a stranger"), *DATA.table.hash_T[2:].tolist()])
    assert model.rows(hashes).tolist() == [NO_ROW, UNKNOWN_ROW, *range(2, len(hashes))]


def test_a_title_outside_the_vocabulary_has_the_unknown_id_and_its_own_metadata() -> None:
    model = tiny.network(DATA, SMALL)
    outside = 2 + DATA.domain.vocabulary
    with torch.inference_mode():
        before = model.titles()
        model.title.weight[UNKNOWN_ROW] += 1
        after = model.titles()
    moved = (after - before).abs().sum(1) > 0
    assert moved.nonzero()[:, 0].tolist() == [UNKNOWN_ROW, *range(outside, len(before))]
    assert not torch.equal(after[outside], after[outside + 1])


def test_the_unknown_id_is_trained_by_withholding_others() -> None:
    model = tiny.network(DATA, replace(SMALL, title_dropout=0.5)).train()
    model.titles()[2 : 2 + DATA.domain.vocabulary].sum().backward()
    assert model.title.weight.grad is not None
    assert model.title.weight.grad[UNKNOWN_ROW].abs().sum() > 0


def test_seen_titles_are_not_proposed_where_titles_never_repeat() -> None:
    for repeats, overlaps in ((True, True), (False, False)):
        data = _with_repeats(repeats)
        model = tiny.network(data, SMALL)
        x = tiny.windows(data)
        with torch.inference_mode():
            proposed = model.answer(x, model.titles(), 20).next_title_hash
        seen = data.table.hash_T[x.title_BL]
        again = (proposed[:, :, None] == seen[:, None, :]) & (proposed != 0)[:, :, None]
        assert bool(again.any()) == overlaps


def test_next_titles_are_in_order_and_their_scores_are_probabilities() -> None:
    model = tiny.network(DATA, SMALL)
    with torch.inference_mode():
        everything = model.answer(tiny.windows(DATA), model.titles(), DATA.domain.vocabulary)
    scores = everything.next_title_score
    assert bool((scores.diff(dim=1) <= 0).all())
    torch.testing.assert_close(scores.sum(1), torch.ones(len(scores)))


def test_an_answer_with_fewer_titles_than_asked_for_is_filled_with_zeros() -> None:
    model = tiny.network(DATA, SMALL)
    titles = DATA.domain.vocabulary
    with torch.inference_mode():
        answer = model.answer(tiny.windows(DATA), model.titles(), titles + 5)
    assert bool((answer.next_title_hash[:, titles:] == 0).all())
    assert bool((answer.next_title_score[:, titles:] == 0).all())


def test_the_user_embedding_says_at_least_how_likely_a_title_is() -> None:
    model = tiny.network(DATA, SMALL)
    x = tiny.windows(DATA)
    with torch.inference_mode():
        titles = model.titles()
        answer = model.answer(x, titles, DATA.domain.vocabulary)
        rows = model.rows(answer.next_title_hash)
        said = (titles[rows] * answer.user_BD[:, None]).sum(-1) - answer.title_log_norm_B1
    seen = (rows[:, :, None] == x.title_BL[:, None]).any(2)
    more = answer.next_title_score.log() - said
    torch.testing.assert_close(more[~seen], torch.zeros_like(more[~seen]), rtol=0, atol=1e-4)
    assert bool((more[seen] > 0).all())


def _with_repeats(repeats: bool) -> Sequences:
    data = tiny.sequences()
    data.domain = replace(data.domain, repeats=repeats)
    return data
