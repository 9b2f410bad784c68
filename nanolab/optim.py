"""Muon for the matrices, AdamW for the embedding and the head, and the learning rate over time.

Muon (Keller Jordan, 2024, kellerjordan.github.io/posts/muon) replaces each update of a weight matrix by
the nearest matrix with all singular values about 1: every direction of the update counts the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nanolab.model import GPT

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def newton_schulz(matrices: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Push all singular values of `(batch, rows, cols)` matrices towards 1, by products alone.

    Each step applies the odd polynomial a s + b s^3 + c s^5 to the singular values s. Five steps take
    values of at least 0.01 (after dividing by the Frobenius norm) into [0.68, 1.14]. The polynomial
    runs in `dtype` (default: as given); bf16 is enough where the machine has it.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(dtype or matrices.dtype)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x.size(-1) > 2 * x.size(-2) and x.dtype == torch.float32:
        x = _newton_schulz_wide(x, steps)
    else:
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def _newton_schulz_wide(x: Tensor, steps: int) -> Tensor:
    """The same polynomials for `(batch, rows, cols)` with cols far above rows, at half the arithmetic.

    A step multiplies x from the left by P = aI + bG + cG^2 with G = x x^T, so the steps can be carried
    out on G, which is small (next G = P G P, as all commute), and x is multiplied once, by the product
    of all P. In bf16 the small eigenvalues of G would drown in rounding.
    """
    a, b, c = NEWTON_SCHULZ
    gram = x @ x.mT
    eye = torch.eye(x.size(-2), dtype=x.dtype, device=x.device).expand_as(gram)
    product = eye
    for step in range(steps):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c).add_(eye, alpha=a)
        product = polynomial if step == 0 else polynomial @ product
        if step < steps - 1:
            gram = polynomial @ gram @ polynomial
    return product @ x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised by Newton-Schulz, scaled by sqrt(max(1, rows / cols)).

    For weight matrices only. Matrices of one shape are orthogonalised in one batched product.
    `torch.optim.Muon(weight_decay=0)` takes the same step.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        ns_steps: int = 5,
        ns_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "ns_steps": ns_steps})
        self.ns_dtype = ns_dtype

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[tuple(p.shape)].append(p)
            for (rows, cols), params in by_shape.items():
                momenta = torch.stack([self._nesterov(p, group["momentum"]) for p in params])
                updates = newton_schulz(momenta, group["ns_steps"], self.ns_dtype)
                scale = group["lr"] * max(1.0, rows / cols) ** 0.5
                torch._foreach_add_(params, list(updates.unbind(0)), alpha=-scale)

    def _nesterov(self, p: Tensor, momentum: float) -> Tensor:
        """The gradient, looked at from where the momentum is about to take us. `p.grad` stays as it is."""
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        velocity = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(velocity, momentum)


@dataclass(frozen=True)
class LearningRates:
    """Peak rates; the two of AdamW are for width 768 and scale with (width / 768)^-0.5, as in nanochat."""

    matrix: float = 0.02
    embedding: float = 0.2
    unembedding: float = 0.004
    values: float = 0.5
    scalar: float = 0.5


def build_optimizers(
    model: GPT, rates: LearningRates, *, fraction: float = 1.0, ns_dtype: torch.dtype | None = None
) -> list[torch.optim.Optimizer]:
    """[AdamW, Muon] over the model, every parameter in exactly one group; all rates times `fraction`.

    Each group remembers its peak rate as `initial_lr`, which the schedule multiplies.
    """
    width_scale = (model.config.n_embd / 768) ** -0.5
    matrices = list(model.transformer["h"].parameters())
    groups: dict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not name.startswith("transformer.h."):
            groups[name.split(".")[0]].append(parameter)
    rate_of = {
        "transformer": rates.embedding * width_scale,
        "lm_head": rates.unembedding * width_scale,
        "value_embeds": rates.embedding * width_scale * rates.values,
        "resid_lambdas": rates.scalar * 0.01,
        "x0_lambdas": rates.scalar,
    }
    adamw = torch.optim.AdamW(
        [{"params": params, "lr": rate_of.get(name, 0.2)} for name, params in groups.items()],
        betas=(0.8, 0.95),
        eps=1e-10,
        weight_decay=0.0,
        fused=True,
    )
    optimizers: list[torch.optim.Optimizer] = [adamw, Muon(matrices, lr=rates.matrix, ns_dtype=ns_dtype)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = group["lr"] * fraction
    return optimizers


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], multiplier: float) -> None:
    """Set every group's rate to its peak times `multiplier`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier


@dataclass(frozen=True)
class Schedule:
    """Learning rate over a run: linear warm-up, flat, linear warm-down. Ratios are shares of all steps."""

    steps: int
    warmup_ratio: float = 0.0
    warmdown_ratio: float = 0.4
    final_fraction: float = 0.0

    def __call__(self, step: int) -> float:
        """The multiplier of step `step` (from 0): above 0 and at most 1."""
        warmup, warmdown = round(self.steps * self.warmup_ratio), round(self.steps * self.warmdown_ratio)
        if step < warmup:
            return (step + 1) / warmup
        if step < self.steps - warmdown:
            return 1.0
        left = (self.steps - step) / max(1, warmdown)
        return left + (1 - left) * self.final_fraction


def clip_gradients(model: nn.Module, limit: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most `limit`; returns the norm before."""
    return nn.utils.clip_grad_norm_(model.parameters(), limit if limit > 0 else float("inf"))
