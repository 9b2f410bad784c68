"""GRPO: reinforcement learning from answers that can be checked (DeepSeekMath, Shao et al., 2024).

Sample several answers to a problem, reward each, and make the tokens of those that did better than
their group's mean likelier. There is no value network: the group is its own baseline.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanolab import ranks
from nanolab.chat import render_for_completion
from nanolab.compute import Compute
from nanolab.engine import Engine, Sample
from nanolab.model import GPT
from nanolab.optim import Schedule, clip_gradients, set_learning_rate
from nanolab.profiles import RLPlan
from nanolab.tasks import Task


def group_advantages(rewards: Tensor, *, normalise: bool = False) -> Tensor:
    """How much better each answer is than its group's mean.

    rewards: `(groups, samples)`, any scale. Returns the same shape; each row sums to 0.
    A group whose rewards are all equal has nothing to teach: its row is exactly 0.
    `normalise` also divides by the group's standard deviation (DeepSeekMath, eq. 3); off by default,
    because it favours questions that are nearly always right or wrong (Liu et al., 2025, Dr. GRPO).
    """
    equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    centred = torch.where(equal, 0.0, rewards - rewards.mean(dim=1, keepdim=True))
    if not normalise:
        return centred
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(equal, 0.0, centred / spread.clamp_min(1e-6))


def policy_loss(
    logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    denominator: Tensor | float | None = None,
    old_logprobs: Tensor | None = None,
    clip: float = 0.0,
    reference_logprobs: Tensor | None = None,
    kl_weight: float = 0.0,
) -> Tensor:
    """The loss whose gradient reinforces good answers: -sum(ratio * advantage) / denominator.

    logprobs, mask, old_logprobs, reference_logprobs: `(rows, T)`, in nats; mask is 1 on sampled tokens.
    advantages: `(rows,)`. `denominator` defaults to the mask's sum; give the tokens of the whole step
    when this is one of several micro-batches. Without `old_logprobs` the answers are the current
    policy's own, the ratio is 1, and the gradient is REINFORCE's. `clip` bounds the ratio to
    [1 - clip, 1 + clip] (PPO); `kl_weight` adds the k3 estimate of KL(policy || reference)
    (Schulman, 2020): exp(d) - d - 1 with d = reference - policy.
    """
    if denominator is None:
        denominator = mask.sum().clamp_min(1)
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    ratio = (logprobs - old).exp()
    gain = ratio * advantages[:, None]
    if clip > 0:
        gain = torch.minimum(gain, ratio.clamp(1 - clip, 1 + clip) * advantages[:, None])
    if kl_weight > 0 and reference_logprobs is not None:
        difference = reference_logprobs - logprobs
        gain = gain - kl_weight * (difference.exp() - difference - 1)
    return -(gain * mask).sum() / denominator


@dataclass(frozen=True)
class Rollout:
    """One step's problems, answers and rewards."""

    prompts: list[list[int]]
    samples: list[list[Sample]]
    rewards: Tensor
    """`(groups, samples)`"""

    @property
    def sampled_tokens(self) -> int:
        return sum(sum(sample.mask) for group in self.samples for sample in group)


@dataclass(frozen=True)
class RLRecord:
    """What one GRPO step did."""

    index: int
    reward: float
    """mean over all answers of the step"""
    without_variance: float
    """share of groups whose rewards were all equal, from which nothing can be learnt"""
    length: float
    """mean sampled tokens of an answer"""
    finished: float
    """share of answers that ended before the token limit"""
    lr: float
    grad_norm: float
    tokens: int
    """sampled tokens"""
    seconds: float


def sample_rollout(engine: Engine, task: Task, indices: Sequence[int], plan: RLPlan, *, seed: int) -> Rollout:
    """Answer the task's examples `indices`, `plan.num_samples` times each, and reward every answer."""
    examples = [task[i] for i in indices]
    prompts = [render_for_completion(engine.tokenizer, example) for example in examples]
    samples = engine.generate_batch(
        prompts, num_samples=plan.num_samples, max_tokens=plan.max_new_tokens,
        temperature=plan.temperature, top_k=plan.top_k or None, seed=seed,
    )  # fmt: skip
    rewards = [
        [task.reward(example, engine.completion_text(sample)) for sample in group]
        for example, group in zip(examples, samples, strict=True)
    ]
    if plan.shuffle_rewards:
        flat = [reward for group in rewards for reward in group]
        random.Random(seed).shuffle(flat)
        rewards = [flat[i : i + plan.num_samples] for i in range(0, len(flat), plan.num_samples)]
    return Rollout(prompts, samples, torch.tensor(rewards, dtype=torch.float32))


def rollout_batches(
    rollout: Rollout, advantages: Tensor, rows: int, pad: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`(inputs (B, T), targets (B, T), advantages (B,))`, at most `rows` answers at a time.

    Targets are -1 wherever the model did not choose: the prompt, tool output, padding. Answers whose
    advantage is 0 are left out, of the KL penalty too: they teach nothing. Short answers share a batch.
    """
    chosen = []
    for prompt, group, group_advantage in zip(
        rollout.prompts, rollout.samples, advantages.tolist(), strict=True
    ):
        for sample, advantage in zip(group, group_advantage, strict=True):
            if advantage:
                chosen.append((prompt, sample, advantage))
    chosen.sort(key=lambda item: len(item[0]) + len(item[1].ids))
    for start in range(0, len(chosen), rows):
        part = chosen[start : start + rows]
        width = max(len(prompt) + len(sample.ids) for prompt, sample, _ in part) - 1
        inputs = torch.full((len(part), width), pad)
        targets = torch.full((len(part), width), -1)
        for row, (prompt, sample, _) in enumerate(part):
            ids = torch.tensor(prompt + sample.ids)
            sampled = torch.tensor([0] * len(prompt) + sample.mask, dtype=torch.bool)
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, : len(ids) - 1] = torch.where(sampled[1:], ids[1:], -1)
        values = torch.tensor([advantage for *_, advantage in part])
        yield inputs.to(device), targets.to(device), values.to(device)


def token_logprobs(model: GPT, inputs: Tensor, targets: Tensor, compute: Compute) -> Tensor:
    """Log-probability of each target, in nats, `(B, T)`; 0 where the target is -1."""
    with compute.autocast():
        return -model(inputs, targets, loss_reduction="none")


def grpo(
    model: GPT,
    engine: Engine,
    optimizers: Sequence[torch.optim.Optimizer],
    task: Task,
    plan: RLPlan,
    schedule: Schedule,
    *,
    start: int = 0,
    seed: int = 0,
    grad_clip: float = 1.0,
    reference: GPT | None = None,
    compute: Compute | None = None,
) -> Iterator[RLRecord]:
    """Train by GRPO, and yield an RLRecord after each optimizer step from `start` on.

    Step i works on examples i * examples_per_step onwards, with seeds derived from `seed` and i, so a
    resumed run needs no other state. The gradient is divided by the sampled tokens of the whole step.
    `reference` is the model that the KL penalty pulls towards.
    """
    compute = compute or Compute(model.device, torch.float32, "default")
    pad = engine.tokenizer.get_bos_token_id()
    for index in range(start, schedule.steps):
        began = time.perf_counter()
        first = index * plan.examples_per_step
        indices = [(first + i) % len(task) for i in range(plan.examples_per_step)]
        model.eval()
        sampler = engine.in_format(compute.dtype)
        rollout = sample_rollout(sampler, task, indices, plan, seed=seed * 1_000_003 + index)
        advantages = group_advantages(rollout.rewards, normalise=plan.normalise_std)
        model.train()
        tokens = rollout.sampled_tokens
        # Cut finely enough that there is a part for every process.
        rows = min(plan.device_batch_size, -(-rollout.rewards.numel() // ranks.world_size()))
        batches = ranks.share(list(rollout_batches(rollout, advantages, rows, pad, model.device)))
        old: list[Tensor] = []
        for update in range(plan.updates_per_step):
            for number, (inputs, targets, advantage) in enumerate(batches):
                logprobs = token_logprobs(model, inputs, targets, compute)
                if update == 0:
                    old.append(logprobs.detach())
                anchor = None
                if reference is not None and plan.kl_weight > 0:
                    with torch.no_grad():
                        anchor = token_logprobs(reference, inputs, targets, compute)
                policy_loss(
                    logprobs, advantage, targets >= 0, denominator=tokens, old_logprobs=old[number],
                    clip=plan.clip, reference_logprobs=anchor, kl_weight=plan.kl_weight,
                ).backward()  # fmt: skip
            ranks.sum_gradients(model)
            grad_norm = clip_gradients(model, grad_clip).item()
            set_learning_rate(optimizers, schedule(index))
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad(set_to_none=True)
        flat = [sample for group in rollout.samples for sample in group]
        yield RLRecord(
            index,
            reward=rollout.rewards.mean().item(),
            without_variance=(advantages == 0).all(dim=1).float().mean().item(),
            length=tokens / len(flat),
            finished=sum(sample.finished for sample in flat) / len(flat),
            lr=schedule(index),
            grad_norm=grad_norm,
            tokens=tokens,
            seconds=time.perf_counter() - began,
        )
