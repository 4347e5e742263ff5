"""Processes that train together, as `torchrun` starts them, over loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from fm_intent.ranks import Ranks
from tests.checkout import REPOSITORY

_ONE_OF_SEVERAL = """
import sys
from pathlib import Path
import torch
from fm_intent.ranks import ranks
from fm_intent.train import fit
from tests.unit.fm_intent.test_train import DATA, QUICK

folder = Path(sys.argv[1])
with ranks("cpu") as (own, device):
    fitted = fit(
        DATA, QUICK, seed=0, run_dir=folder, data_id="made-up", device=device, ranks=own
    )
    torch.save([one.detach() for one in fitted.model.parameters()], folder / f"{own.own}.pt")
"""


def test_processes_that_train_together_end_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(_ONE_OF_SEVERAL)
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr"),
            *("127.0.0.1", str(tmp_path / "one.py"), str(tmp_path)),
        ],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    first, second = (torch.load(tmp_path / f"{own}.pt") for own in (0, 1))
    assert first
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_each_takes_as_many_batches_as_the_others_and_none_is_taken_twice() -> None:
    shares = [Ranks(own, 3).share(range(8)) for own in range(3)]
    assert [list(share) for share in shares] == [[0, 3], [1, 4], [2, 5]]


def test_one_alone_takes_every_batch() -> None:
    assert list(Ranks().share(range(8))) == list(range(8))
