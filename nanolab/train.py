"""The training loop: one generator for base, mid and sft. What to do with each step is the caller's."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanolab import ranks
from nanolab.compute import Compute
from nanolab.errors import NanolabError
from nanolab.model import GPT
from nanolab.optim import Schedule, clip_gradients, set_learning_rate

Batch = tuple[Tensor, Tensor]


class Diverged(NanolabError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step did."""

    index: int
    """number of the step, from 0"""
    loss: float
    """mean over the step's supervised tokens before the update, in nats"""
    lr: float
    """learning-rate multiplier, in (0, 1]"""
    tokens: int
    """tokens read"""
    supervised: int
    """tokens that counted in the loss"""
    grad_norm: float
    """norm of the whole gradient, before clipping"""
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def fit(
    model: GPT,
    optimizers: Sequence[torch.optim.Optimizer],
    batches: Iterator[Batch],
    schedule: Schedule,
    *,
    start: int = 0,
    micro_batches: int = 1,
    grad_clip: float = 1.0,
    compute: Compute | None = None,
) -> Iterator[StepRecord]:
    """Train, and yield a StepRecord after each optimizer step from `start` to `schedule.steps`.

    `batches` gives `(inputs, targets)`, each `(B, T)`; `micro_batches` of them make a step. The
    gradient is divided by the supervised tokens of the whole step, so it does not depend on how the
    step is cut up; several processes compute a part of it each (ranks.py). Stop whenever you like:
    between two steps everything is consistent.
    Raises Diverged, before the weights are touched, when the loss is not finite.
    """
    compute = compute or Compute(model.device, torch.float32, "default")
    model.train()
    for index in range(start, schedule.steps):
        began = time.perf_counter()
        step_batches = [next(batches) for _ in range(micro_batches)]
        supervised = sum(int((targets >= 0).sum()) for _, targets in step_batches)
        loss = 0.0
        for inputs, targets in ranks.share(step_batches):
            with compute.autocast():
                micro_loss = model(inputs, targets, loss_reduction="sum") / max(1, supervised)
            micro_loss.backward()
            loss += micro_loss.item()
        loss = ranks.total(loss)
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} at step {index}: the training has diverged.\n"
                "Use a lower learning rate (--matrix-lr), then start again from the last checkpoint."
            )
        ranks.sum_gradients(model)
        grad_norm = clip_gradients(model, grad_clip).item()
        set_learning_rate(optimizers, schedule(index))
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        tokens = sum(inputs.numel() for inputs, _ in step_batches)
        seconds = time.perf_counter() - began
        yield StepRecord(index, loss, schedule(index), tokens, supervised, grad_norm, seconds)
