"""Muon for the matrices, AdamW for the embedding and the head, and the learning rate over time.

Muon (Keller Jordan, 2024, kellerjordan.github.io/posts/muon) replaces each update of a weight matrix by
the nearest matrix with all singular values about 1: every direction of the update counts the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nanolab.model import GPT

Polynomial = tuple[float, float, float]
"""(a, b, c) of a s + b s^3 + c s^5, which an iteration applies to the singular values s of a matrix."""

NEWTON_SCHULZ: Polynomial = (3.4445, -4.7750, 2.0315)
"""Keller Jordan's: five times in a row takes singular values from 0.01 on into [0.68, 1.14]."""

POLAR_EXPRESS: tuple[Polynomial, ...] = (
    (6.620, -17.290, 12.010),
    (3.977, -3.749, 0.940),
    (2.832, -2.272, 0.553),
)
"""Three different ones, each the best after those before it, which take them into [0.70, 1.31] (Amsel et
al., 2025, "The Polar Express"). Nearer to 1 did not train better here, and takes longer."""


def orthogonalise(
    matrices: Tensor, polynomials: Sequence[Polynomial], dtype: torch.dtype | None = None
) -> Tensor:
    """Push all singular values of `(batch, rows, cols)` matrices towards 1, by products alone.

    Divided by its Frobenius norm, a matrix has singular values of at most 1; then come the polynomials.
    They run in `dtype` (default: as given); bf16 is enough where the machine has it.
    """
    x = matrices.to(dtype or matrices.dtype)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x.size(-1) > 2 * x.size(-2) and x.dtype == torch.float32:
        x = _orthogonalise_wide(x, polynomials)
    else:
        for a, b, c in polynomials:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def _orthogonalise_wide(x: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """The same polynomials for `(batch, rows, cols)` with cols far above rows, at half the arithmetic.

    A step multiplies x from the left by P = aI + bG + cG^2 with G = x x^T, so the steps can be carried
    out on G, which is small (next G = P G P, as all commute), and x is multiplied once, by the product
    of all P. In bf16 the small eigenvalues of G would drown in rounding.
    """
    gram = x @ x.mT
    eye = torch.eye(x.size(-2), dtype=x.dtype, device=x.device).expand_as(gram)
    product = eye
    for step, (a, b, c) in enumerate(polynomials):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c).add_(eye, alpha=a)
        product = polynomial if step == 0 else polynomial @ product
        if step < len(polynomials) - 1:
            gram = polynomial @ gram @ polynomial
    return product @ x


def newton_schulz(matrices: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """`orthogonalise` with the polynomial of the first Muon, `steps` times."""
    return orthogonalise(matrices, (NEWTON_SCHULZ,) * steps, dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled by sqrt(max(1, rows / cols)).

    For weight matrices only. Matrices of one shape are orthogonalised in one batched product. As it stands,
    `torch.optim.Muon(weight_decay=0)` takes the same step. `beta2` above 0 adds NorMuon's even rows
    (Li et al., 2025, "NorMuon"); 0.9 is nanochat's.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        polynomials: Sequence[Polynomial] = (NEWTON_SCHULZ,) * 5,
        beta2: float = 0.0,
        ns_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.polynomials, self.beta2, self.ns_dtype = polynomials, beta2, ns_dtype

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[tuple(p.shape)].append(p)
            for (rows, cols), params in by_shape.items():
                momenta = torch.stack([self._nesterov(p, group["momentum"]) for p in params])
                updates = orthogonalise(momenta, self.polynomials, self.ns_dtype)
                if self.beta2:
                    updates = self._even(updates, params)
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

    def _even(self, updates: Tensor, params: Sequence[Tensor]) -> Tensor:
        """Divide each row of `(batch, rows, cols)` updates, of wide ones each column, by a running mean of
        its size; each matrix as a whole keeps its norm."""
        along = -1 if updates.size(-2) >= updates.size(-1) else -2
        sizes = updates.square().mean(dim=along, keepdim=True)
        for p, size in zip(params, sizes, strict=True):
            state = self.state[p]
            if "second_moment" not in state:
                state["second_moment"] = torch.zeros_like(size)
            state["second_moment"].lerp_(size, 1 - self.beta2)
        scale = torch.stack([self.state[p]["second_moment"] for p in params]).clamp_min(1e-10).rsqrt()
        before, after = sizes.sum((-2, -1), True), (sizes * scale.square()).sum((-2, -1), True)
        return updates * (scale * (before / after.clamp_min(1e-10)).sqrt())


@dataclass(frozen=True)
class LearningRates:
    """Peak rates; those of AdamW are for width 768 and scale with (width / 768)^-0.5, as in nanochat, but for
    that of the scalars. The last two say how Muon steps."""

    matrix: float = 0.02
    embedding: float = 0.2
    """value embeddings learn at half of it"""
    unembedding: float = 0.004
    scalar: float = 0.5
    """of the first embedding's share in each layer; the stream's own learns at a hundredth of it"""
    polar_express: bool = False
    """three polynomials in place of Newton-Schulz's five"""
    muon_beta2: float = 0.0
    """NorMuon's running mean; 0 for none"""


def build_optimizers(
    model: GPT, rates: LearningRates, *, fraction: float = 1.0, ns_dtype: torch.dtype | None = None
) -> list[torch.optim.Optimizer]:
    """[AdamW, Muon] over the model, every parameter in exactly one group; all rates times `fraction`.

    Each group remembers its peak rate as `initial_lr`, which the schedule multiplies.
    """
    width_scale = (model.config.n_embd / 768) ** -0.5
    rate_of = {
        "transformer": rates.embedding * width_scale,
        "lm_head": rates.unembedding * width_scale,
        "value_embeds": rates.embedding * width_scale / 2,
        "resid_lambdas": rates.scalar / 100,
        "x0_lambdas": rates.scalar,
        "smear_gate": 0.2,
        "smear_lambda": 0.2,
        "backout_lambda": 0.2,
    }
    matrices: list[Tensor] = []
    others: dict[str, list[Tensor]] = {name: [] for name in rate_of}
    for name, parameter in model.named_parameters():
        in_a_block = name.startswith("transformer.h.")
        (matrices if in_a_block else others[name.split(".")[0]]).append(parameter)
    adamw = torch.optim.AdamW(
        # While the blocks still write nothing, the scalars only change the size of the stream, which the norm
        # undoes: their gradient is rounding (1e-8, later 1e-2), and AdamW would make whole steps of it.
        [
            {"params": params, "lr": rate_of[name], "eps": 1e-4 if name.endswith("lambdas") else 1e-10}
            for name, params in others.items()
            if params
        ],
        betas=(0.8, 0.95),
        weight_decay=0.0,
        fused=True,
    )
    muon = Muon(
        matrices, lr=rates.matrix, beta2=rates.muon_beta2, ns_dtype=ns_dtype,
        polynomials=POLAR_EXPRESS if rates.polar_express else (NEWTON_SCHULZ,) * 5,
    )  # fmt: skip
    optimizers: list[torch.optim.Optimizer] = [adamw, muon]
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
