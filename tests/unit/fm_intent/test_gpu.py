"""What must hold on a GPU as well; skipped where there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from fm_intent.baselines import GRUSettings, SASRecSettings, TransActSettings, WithMetadata
from fm_intent.experiments import Experiment, Model, Training
from fm_intent.served.cache import Cache, profile_bytes
from fm_intent.served.network import Architecture, load, save
from fm_intent.train import LOG, fit, losses
from lab.bench import streams
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.served.test_cache import first
from tests.unit.fm_intent.served.test_network import one_window

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

DATA = tiny.sequences()
SMALL = Architecture(width=16, hidden=24, item_layers=2)
QUICK = Training(epochs=6, batch=512, round_batches=3, learning_rate=1e-2, warmup_steps=5)
TOLERANCE = 1e-4


@pytest.mark.parametrize("repeats", [True, False])
def test_answers_are_those_of_the_cpu(tmp_path: Path, repeats: bool) -> None:
    data = tiny.sequences()
    data.domain = replace(data.domain, repeats=repeats)
    model = tiny.network(data, SMALL)
    model.title_share_M.fill_(0.5)
    save(model, tmp_path / "model.pt")
    there = load(tmp_path / "model.pt", "cuda")
    x = tiny.windows(DATA)
    with torch.inference_mode():
        here = model.answer(x, model.titles(), streams.TOP)
        answer = there.answer(x.to("cuda"), there.titles(), streams.TOP)
        moved = type(here)(
            tuple(one.cpu() for one in answer.intent_probs), *(one.cpu() for one in answer[1:])
        )
    assert streams.differences(here, moved) < TOLERANCE


def test_answers_from_the_cache_are_those_computed_whole() -> None:
    model = tiny.network(DATA, SMALL).to("cuda")
    room = 8 * profile_bytes(model, 16)
    cache = Cache(model, streams.TOP, 16, room)
    whole = one_window(16).to("cuda")
    with torch.inference_mode():
        for length in (5, 6, 6, 9, 16):
            x = first(whole, length)
            found = cache.answer(torch.tensor([1], device="cuda"), x)
            wanted = model.answer(x, model.titles(), streams.TOP)
            assert streams.differences(found, wanted) < TOLERANCE
    assert cache.counts.positions == 5 + 1 + 1 + 3 + 7


MODELS: dict[str, Model] = {
    "fm-intent": SMALL,
    "told the time": replace(SMALL, target_time=True),
    "gru": GRUSettings(width=16, hidden=16, dropout=0),
    "sasrec": SASRecSettings(width=16),
    "transact": TransActSettings(width=16),
    "sasrec-metadata": WithMetadata(SASRecSettings(width=16)),
    "transact-metadata": WithMetadata(TransActSettings(width=16), target_time=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_their_gradients_are_those_of_the_cpu(name: str) -> None:
    experiment = Experiment(MODELS[name], QUICK)
    batch = DATA.batch(DATA.crops(64, "served")[:20])
    totals, gradients = [], []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = experiment.build(DATA).eval().to(device)
        if name == "gru":
            model.train()  # cuDNN has no gradient otherwise; nothing is dropped out
        loss, _ = losses(model, batch.to(device), QUICK)
        torch.autograd.backward(loss)
        totals.append(loss.item())
        taken = [one.grad for one in model.parameters() if one.grad is not None]
        gradients.append(torch.cat([one.flatten().cpu() for one in taken]))
    assert totals[1] == pytest.approx(totals[0], rel=1e-4)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-2)


def test_a_run_begun_on_a_gpu_goes_on_without_one(tmp_path: Path) -> None:
    experiment = Experiment(SMALL, QUICK)

    def rounds(device: str, deadline: float | None) -> int:
        run = {"seed": 0, "run_dir": tmp_path, "data_id": "made-up"}
        fit(DATA, experiment, **run, device=device, deadline=deadline)
        return len(json.loads((tmp_path / LOG).read_text()))

    begun = rounds("cuda", 0.0)  # there is no time for more than one round
    assert begun == 1
    assert rounds("cpu", None) > begun
