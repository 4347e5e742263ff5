from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fm_intent import ranking_metrics
from fm_intent.baselines import Popularity
from fm_intent.data.dataset import PLAYS
from fm_intent.evaluate import NetworkPredictor, next_title_ranks
from fm_intent.experiments import Experiment, Training
from fm_intent.served.network import Architecture
from fm_intent.train import Fitted, fit, losses
from stream.exceptions import CheckpointMismatchError
from tests.unit.fm_intent import tiny

DATA = tiny.sequences()
SMALL = Architecture(width=16, hidden=16, item_layers=1)
QUICK = Experiment(
    SMALL,
    Training(epochs=2, batch=512, round_batches=3, learning_rate=1e-2, warmup_steps=5),
)


def run(where: Path, experiment: Experiment = QUICK, seed: int = 0) -> Fitted:
    return fit(DATA, experiment, seed=seed, run_dir=where, data_id="made-up")


def weights(fitted: Fitted) -> torch.Tensor:
    return torch.cat([one.flatten() for one in fitted.model.parameters()])


def test_training_learns_more_than_popularity_knows(tmp_path: Path) -> None:
    setup = replace(QUICK.training, epochs=12)
    fitted = run(tmp_path, replace(QUICK, training=setup))
    contexts = DATA.contexts("test", 64, "served")
    model = next_title_ranks(NetworkPredictor(fitted.model, "cpu"), DATA, contexts)
    popular = next_title_ranks(Popularity(DATA), DATA, contexts)
    assert ranking_metrics.ndcg(model, 10) > 1.5 * ranking_metrics.ndcg(popular, 10)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    one, again = run(tmp_path / "a"), run(tmp_path / "b")
    other = run(tmp_path / "c", seed=1)
    assert torch.equal(weights(one), weights(again))
    assert not torch.equal(weights(one), weights(other))


class _KilledError(Exception):
    pass


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    steps = 0

    def killed_in_the_third_round(*arguments: object) -> object:
        nonlocal steps
        steps += 1
        if steps > 6:
            raise _KilledError
        return losses(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("fm_intent.train.losses", killed_in_the_third_round)
    with pytest.raises(_KilledError):
        run(tmp_path / "killed")
    monkeypatch.undo()
    resumed = run(tmp_path / "killed")
    assert torch.equal(weights(whole), weights(resumed))
    assert len(json.loads((tmp_path / "killed" / "log.json").read_text())) == len(
        json.loads((tmp_path / "whole" / "log.json").read_text())
    )


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = (tmp_path / "log.json").read_text()
    again = run(tmp_path)
    assert torch.equal(weights(first), weights(again))
    assert (tmp_path / "log.json").read_text() == before


def test_a_run_of_something_else_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(CheckpointMismatchError, match="delete that folder"):
        run(tmp_path, seed=1)


def test_a_checkpoint_of_another_network_is_not_gone_on_from(tmp_path: Path) -> None:
    run(tmp_path)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del content["average"]["title_share_M"]
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointMismatchError, match="another network"):
        run(tmp_path)


def test_training_stops_when_validation_stops_getting_better(tmp_path: Path) -> None:
    setup = replace(QUICK.training, epochs=50, learning_rate=0.0, patience=2)
    run(tmp_path, replace(QUICK, training=setup))
    assert len(json.loads((tmp_path / "log.json").read_text())) == 3


def test_a_learning_curve_is_drawn(tmp_path: Path) -> None:
    run(tmp_path)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_an_unmeasured_target_weighs_one_and_a_longer_watch_weighs_more() -> None:
    batch = DATA.batch(DATA.crops(64, "served")[:20])
    actions = batch.intents[0]
    browsing = actions >= 3
    assert bool((batch.weight_BL[browsing] == 1).all())
    watched = torch.from_numpy(DATA.columns.watched_ms.copy())
    weight = torch.from_numpy(DATA._weight)
    order = watched[watched > 0].argsort()
    assert bool((weight[watched > 0][order].diff() >= 0).all())
    assert weight[watched > 0].mean().item() == pytest.approx(1, abs=1e-5)


def test_titles_in_the_window_leave_the_softmax_in_training_on_request() -> None:
    batch = DATA.batch(DATA.crops(64, "served")[:8])
    experiment = replace(QUICK, training=replace(QUICK.training, exclude_seen=True))
    torch.manual_seed(0)
    model = experiment.build(DATA).eval()
    model.domain = replace(model.domain, repeats=False)
    _, without = losses(model, batch, QUICK.training)
    _, excluded = losses(model, batch, experiment.training)
    assert excluded < without
    model.domain = replace(model.domain, repeats=True)
    assert losses(model, batch, experiment.training)[1] == without


def test_a_network_told_the_time_of_the_target_is_told_that_of_the_play_it_predicts() -> None:
    told: list[torch.Tensor] = []
    model = replace(QUICK, model=replace(SMALL, target_time=True)).build(DATA)
    original = model.forward

    def spy(*arguments: Any, asked_ms_BL: torch.Tensor, **others: Any) -> Any:
        told.append(asked_ms_BL)
        return original(*arguments, asked_ms_BL=asked_ms_BL, **others)

    model.forward = spy  # type: ignore[method-assign]
    crop = DATA.crops(64, "served")[0]
    batch = DATA.batch([crop])
    losses(model, batch, QUICK.training)
    contexts = DATA.contexts("test", 64, "served")
    NetworkPredictor(model.eval(), "cpu").scores(DATA, contexts)
    start_ms, plays = DATA.columns.start_ms, np.isin(DATA.columns.action, PLAYS)
    for position in (batch.next_play_BL[0] >= 0).nonzero().flatten().tolist():
        following = int(crop[0]) + position + 1
        play = following + int(plays[following:].argmax())
        assert told[0][0, position] == start_ms[play]
    newest = told[1].gather(1, DATA.windows(contexts).length_B[:, None] - 1)
    assert newest[:, 0].tolist() == start_ms[contexts.end].tolist()
