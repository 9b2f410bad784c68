"""The loss in chunks against autograd's own, in float64."""

import pytest
import torch
import torch.nn.functional as F

from nanolab.loss import FusedLoss, capped_cross_entropy_, loss_chunk, softcap


def test_fused_gradient_is_right_in_float64():
    x = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(9, (7,))

    def reference(x, weight):
        return F.cross_entropy(softcap(x @ weight.T), targets, reduction="sum")

    expected = torch.autograd.grad(reference(x, weight), (x, weight))
    actual = torch.autograd.grad(FusedLoss.apply(x, weight, targets), (x, weight))
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_chunks_hold_four_million_logits_or_512_tokens():
    assert loss_chunk(2048) * 2048 == 2**22 and loss_chunk(65_536) == 512


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradient_of_logits_are_those_of_autograd(dtype):
    """At a vocabulary so large that a few rows fill the cache: 20 rows go in three parts."""
    logits = torch.randn(20, 2**15, generator=torch.Generator().manual_seed(1)).to(dtype)
    targets = torch.arange(0, 2**15, 2**15 // 20 + 1)[:, None]
    uncapped = (logits.double() * 15).requires_grad_()
    expected = F.cross_entropy(softcap(uncapped), targets[:, 0], reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), uncapped)
    losses, normalisers = capped_cross_entropy_(logits.clone(), targets, gradient=False)
    torch.testing.assert_close(losses[:, 0].double(), expected.detach(), rtol=1e-5, atol=1e-5)
    written = logits.clone()
    capped_cross_entropy_(written, targets, gradient=True)
    actual = written.double() / normalisers
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    assert (actual - gradient).norm() <= tolerance * gradient.norm()


def test_losses_alone_leave_the_logits_as_they_are():
    logits = torch.randn(3, 50)
    before = logits.clone()
    capped_cross_entropy_(logits, torch.tensor([[0], [1], [2]]), gradient=False)
    assert torch.equal(logits, before)
