from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from fm_intent import ranking_metrics
from fm_intent.baselines import (
    Baseline,
    GRUSettings,
    Popularity,
    SASRecSettings,
    TransActSettings,
    WithMetadata,
)
from fm_intent.evaluate import NetworkPredictor, next_title_ranks
from fm_intent.experiments import Experiment, Training
from fm_intent.served.network import FIRST_ROW, UNKNOWN_ROW
from fm_intent.train import fit
from tests.unit.fm_intent import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from fm_intent.served.network import Interactions

DATA = tiny.sequences()
WINDOWS = tiny.windows(DATA)
SASREC = SASRecSettings(width=16, dropout=0.0)
TRANSACT = TransActSettings(width=16, action_width=8, latest=3, dropout=0.0)
SETTINGS = {
    "gru": GRUSettings(width=16, hidden=24, dropout=0.0),
    "sasrec": SASREC,
    "transact": TRANSACT,
    "sasrec-metadata": WithMetadata(SASREC),
    "transact-metadata": WithMetadata(TRANSACT),
}
every_baseline = pytest.mark.parametrize("name", SETTINGS)


def network(name: str) -> Baseline:
    torch.manual_seed(0)
    model = SETTINGS[name].build(DATA, 64)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@torch.inference_mode()
def users(model: Baseline, x: Interactions, *, newest_only: bool = False) -> torch.Tensor:
    return model(x, model.titles(), newest_only=newest_only).user_BLD


@every_baseline
def test_what_comes_later_changes_nothing_before(name: str) -> None:
    model = network(name)
    last = WINDOWS.length_B - 1
    rows = torch.arange(len(last))
    titles, actions, starts = (
        column.clone() for column in (WINDOWS.title_BL, WINDOWS.action_BL, WINDOWS.start_ms_BL)
    )
    titles[rows, last] = FIRST_ROW + 3
    actions[rows, last] = 1
    starts[rows, last] += 1_000_000
    changed = WINDOWS._replace(title_BL=titles, action_BL=actions, start_ms_BL=starts)
    before = torch.arange(WINDOWS.title_BL.shape[1]) < last[:, None]
    one, other = users(model, WINDOWS), users(model, changed)
    torch.testing.assert_close(one[before], other[before])
    assert not torch.allclose(one[rows, last], other[rows, last])


@pytest.mark.parametrize("name", ["gru", "sasrec", "transact"])
def test_without_metadata_a_title_that_was_never_played_is_unknown(name: str) -> None:
    model = network(name)
    never_played = len(DATA.table.hash_T) - 1
    assert never_played >= FIRST_ROW + DATA.domain.vocabulary
    looked_at, unknown = (
        WINDOWS._replace(title_BL=torch.full_like(WINDOWS.title_BL, row))
        for row in (never_played, UNKNOWN_ROW)
    )
    torch.testing.assert_close(users(model, looked_at), users(model, unknown))


@every_baseline
def test_the_newest_position_alone_says_what_it_says_among_all(name: str) -> None:
    model = network(name)
    rows, last = torch.arange(len(WINDOWS.length_B)), WINDOWS.length_B - 1
    torch.testing.assert_close(
        users(model, WINDOWS, newest_only=True)[:, 0], users(model, WINDOWS)[rows, last]
    )


@every_baseline
def test_evaluation_computes_what_was_trained(name: str) -> None:
    model = network(name)
    evaluated = users(model, WINDOWS)
    titles = model.titles()
    trained = model.train()(WINDOWS, titles).user_BLD
    inside = torch.arange(WINDOWS.title_BL.shape[1]) < WINDOWS.length_B[:, None]
    torch.testing.assert_close(evaluated[inside], trained[inside], atol=1e-4, rtol=1e-4)


@every_baseline
def test_padding_has_no_effect(name: str) -> None:
    model = network(name)
    shortest = int(WINDOWS.length_B.argmin())
    length = int(WINDOWS.length_B[shortest])
    padded = type(WINDOWS)(*(column[shortest : shortest + 1] for column in WINDOWS))
    bare = type(padded)(*(column[:, :length] if column.dim() > 1 else column for column in padded))
    assert length < padded.title_BL.shape[1]
    torch.testing.assert_close(
        users(model, padded, newest_only=True), users(model, bare, newest_only=True)
    )


@every_baseline
def test_a_baseline_learns_by_the_common_loop_what_popularity_does_not_know(
    name: str, tmp_path: Path
) -> None:
    setup = Training(epochs=10, batch=512, learning_rate=1e-2, warmup_steps=5, average=0.9)
    fitted = fit(
        DATA, Experiment(SETTINGS[name], setup), seed=0, run_dir=tmp_path, data_id="made-up"
    )
    contexts = DATA.contexts("test", 64, "served")
    model = next_title_ranks(NetworkPredictor(fitted.model, "cpu"), DATA, contexts)
    popular = next_title_ranks(Popularity(DATA), DATA, contexts)
    assert ranking_metrics.ndcg(model, 10) > 1.3 * ranking_metrics.ndcg(popular, 10)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gru", False),
        ("sasrec", False),
        ("transact", False),
        ("sasrec-metadata", True),
        ("transact-metadata", True),
    ],
)
def test_only_those_given_metadata_and_time_know_them(name: str, told: bool) -> None:
    model = network(name)
    stretched = WINDOWS._replace(start_ms_BL=WINDOWS.start_ms_BL * 2)
    same = torch.allclose(users(model, WINDOWS), users(model, stretched))
    assert same is not told
    with torch.no_grad():
        model.get_parameter("frame.title.weight" if told else "title.weight").fill_(0.5)
    spread = model.titles()[FIRST_ROW:].std(0).sum()
    assert bool(spread > 0) is told


@pytest.mark.parametrize(("name", "told"), [("gru", False), ("sasrec", False), ("transact", True)])
def test_transact_knows_the_type_of_an_action(name: str, told: bool) -> None:
    model = network(name)
    others = WINDOWS._replace(action_BL=(WINDOWS.action_BL + 1) % 7)
    assert torch.allclose(users(model, WINDOWS), users(model, others)) is not told


def test_transact_takes_its_latest_as_they_are_and_the_highest_of_all() -> None:
    torch.manual_seed(0)
    head = TRANSACT.build(DATA, 64).get_submodule("head")
    hidden = torch.rand(1, 9, 24)
    hidden[0, 2] = 0
    newest = head(hidden)[0, -1]
    low, high, late = hidden.clone(), hidden.clone(), hidden.clone()
    low[0, 2], high[0, 2], late[0, -TRANSACT.latest] = -1.0, 5.0, -1.0
    torch.testing.assert_close(head(low)[0, -1], newest)
    assert not torch.allclose(head(high)[0, -1], newest)
    assert not torch.allclose(head(late)[0, -1], newest)
    torch.testing.assert_close(head(high)[0, :2], head(hidden)[0, :2])


@pytest.mark.parametrize("name", ["sasrec-metadata", "transact-metadata"])
def test_a_baseline_may_be_told_when_the_next_play_is(name: str) -> None:
    metadata = SETTINGS[name]
    assert isinstance(metadata, WithMetadata)
    said = []
    for told in (False, True):
        torch.manual_seed(0)
        model = WithMetadata(metadata.of, target_time=told).build(DATA, 64)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.eval()
        with torch.inference_mode():
            said.append(
                [
                    model(WINDOWS, model.titles(), asked_ms_BL=WINDOWS.start_ms_BL + wait).user_BLD
                    for wait in (60_000, 30 * 24 * tiny.HOUR_MS)
                ]
            )
    assert torch.equal(*said[0])
    assert not torch.allclose(*said[1])
