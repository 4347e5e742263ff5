from __future__ import annotations

import torch
from torch.nn import functional

from fm_intent.loss import weighted_cross_entropy


def test_loss_and_gradients_are_those_of_cross_entropy() -> None:
    torch.manual_seed(0)
    x, candidates = torch.randn(1100, 8), torch.randn(37, 8)
    target, weight = torch.randint(37, (1100,)), torch.rand(1100)
    ours = [x.clone().requires_grad_(), candidates.clone().requires_grad_()]
    torchs = [x.clone().requires_grad_(), candidates.clone().requires_grad_()]
    loss = weighted_cross_entropy(*ours, target, weight)
    wanted = functional.cross_entropy(torchs[0] @ torchs[1].T, target, reduction="none") @ weight
    (loss * 3).backward()
    (wanted * 3).backward()
    torch.testing.assert_close(loss, wanted)
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)


def test_large_scores_do_not_overflow() -> None:
    x = torch.tensor([[1000.0], [-1000.0]])
    loss = weighted_cross_entropy(
        x, torch.tensor([[1.0], [0.0]]), torch.tensor([0, 0]), torch.ones(2)
    )
    assert loss.item() == 1000.0


def test_what_is_excluded_leaves_the_softmax_but_a_target_never_does() -> None:
    torch.manual_seed(0)
    x, candidates = torch.randn(40, 8), torch.randn(9, 8)
    target, weight = torch.randint(9, (40,)), torch.rand(40)
    excluded = torch.randint(-1, 9, (40, 5))
    excluded[::4, 0] = target[::4]
    out = torch.zeros(40, 10, dtype=torch.bool).scatter_(1, excluded.where(excluded >= 0, 9), True)
    out = out[:, :9].scatter(1, target[:, None], False)
    ours = [x.clone().requires_grad_(), candidates.clone().requires_grad_()]
    torchs = [x.clone().requires_grad_(), candidates.clone().requires_grad_()]
    loss = weighted_cross_entropy(*ours, target, weight, excluded)
    logits = (torchs[0] @ torchs[1].T).masked_fill(out, -torch.inf)
    wanted = functional.cross_entropy(logits, target, reduction="none") @ weight
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(loss, wanted)
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)


def test_what_candidates_gain_adds_to_their_scores_and_has_a_gradient() -> None:
    torch.manual_seed(0)
    x, candidates, gain = torch.randn(1100, 8), torch.randn(37, 8), torch.rand(1100, 5)
    target, weight = torch.randint(37, (1100,)), torch.rand(1100)
    gained = torch.randint(37, (1100, 5))
    ours = [one.clone().requires_grad_() for one in (x, candidates, gain)]
    torchs = [one.clone().requires_grad_() for one in (x, candidates, gain)]
    loss = weighted_cross_entropy(ours[0], ours[1], target, weight, None, ours[2], gained)
    logits = (torchs[0] @ torchs[1].T).scatter_add(1, gained, torchs[2])
    wanted = functional.cross_entropy(logits, target, reduction="none") @ weight
    (loss * 3).backward()
    (wanted * 3).backward()
    torch.testing.assert_close(loss, wanted)
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)
