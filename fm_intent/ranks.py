"""Training by several processes side by side, as `torchrun` starts them; without it, by one.

Each takes its share of every batch of batches; gradients are averaged, so that all have the same
weights after every step. https://docs.pytorch.org/docs/stable/elastic/run.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of one training.

    Attributes:
        own: this one's number, from 0.
        count: how many there are.
    """

    own: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes and tells what all of them do."""
        return self.own == 0

    def share(self, batches: Sequence[T]) -> Sequence[T]:
        """Those of these batches that this process takes: as many as each other's."""
        # What is too few for another turn of all is left out: who waits for no partner hangs.
        turns = len(batches) // self.count
        return batches[self.own : turns * self.count : self.count] if turns else batches

    def average_gradients(self, model: torch.nn.Module) -> None:
        """Set every gradient to the mean of all processes', in place."""
        if self.count == 1:
            return
        given = [one for one in model.parameters() if one.grad is not None]
        flat = torch.cat([one.grad.flatten() for one in given if one.grad is not None])
        distributed.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [one.numel() for one in given])
        for one, part in zip(given, parts, strict=True):
            one.grad = part.view_as(one)

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def agreed(self, value: float, device: str) -> float:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.broadcast(told, 0)
        return float(told.item())


@contextmanager
def ranks(device: str) -> Iterator[tuple[Ranks, str]]:
    """The processes of this training, and the device of this one."""
    if not distributed.is_torchelastic_launched():
        yield Ranks(), device
        return
    on_gpu = device == "cuda"
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        own = Ranks(distributed.get_rank(), distributed.get_world_size())
        if on_gpu:
            device = f"cuda:{distributed.get_node_local_rank()}"
            torch.cuda.set_device(device)
        yield own, device
    finally:
        distributed.destroy_process_group()
