"""Small models of several sizes, what each cost, what it reached, and the line through the best of them.

    result = train_size(profile, tokenizer, width=64, flops=3e11)
    law = fit_law(best_of_each(results))     # bits per byte = a * flops ** -b
    law.at(1e14)

`scaling.json` beside this file holds the tables that `measure` made once at the smoke and the laptop
profile; `python -m nanolab.lessons.scaling laptop` makes one again.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanolab.compute import choose_compute, prepare_process
from nanolab.corpus import text_source
from nanolab.data import Batch, PackedBatches
from nanolab.errors import ConfigError
from nanolab.evals import text_loss
from nanolab.model import GPT, GPTConfig
from nanolab.optim import Schedule, build_optimizers
from nanolab.paths import atomic_write, run_dir
from nanolab.profiles import Profile, get_profile, override
from nanolab.stages import learning_rates, model_config, train_tokenizer
from nanolab.tokenizer import Tokenizer
from nanolab.train import fit

EVAL_TOKENS = 16_384
FEWEST_STEPS = 8
"""Optimizer steps below which a budget is too small for a model to learn anything to compare."""

WIDTHS = (16, 32, 64, 128, 192, 256)
BUDGETS = {"smoke": (2.5e9, 1e10, 4e10, 1.6e11), "laptop": (2e10, 8e10, 3.2e11, 1.28e12)}
"""Operations of the saved tables, by profile; each is about four times the one before."""

TABLE = "scaling.json"


@dataclass(frozen=True)
class SizeResult:
    """One model trained from nothing on base text, and how well it reads text it never saw."""

    width: int
    """channels; the depth is width / 64, at least 1"""
    parameters: int
    tokens: int
    """tokens read in training"""
    flops: float
    """floating-point operations of the whole training"""
    nats: float
    """validation loss of a token"""
    bits_per_byte: float
    seconds: float


def config_of(profile: Profile, width: int) -> GPTConfig:
    """The profile's model at another width: depth width / 64 as in nanochat, below 64 a single layer."""
    heads = -(-width // profile.head_dim)
    return replace(
        model_config(profile), n_layer=max(1, width // 64), n_head=heads, n_kv_head=heads, n_embd=width
    )


def budget_steps(profile: Profile, width: int, flops: float) -> int:
    """How many optimizer steps of the profile's base stage a model of `width` gets for `flops`."""
    return round(flops / (GPT(config_of(profile, width)).flops_per_token() * profile.base.total_batch_size))


def train_size(
    profile: Profile,
    tokenizer: Tokenizer,
    width: int,
    *,
    steps: int | None = None,
    flops: float | None = None,
    texts: Mapping[str, Sequence[str]] | None = None,
    eval_tokens: int = EVAL_TOKENS,
) -> SizeResult:
    """Train a model of `width` on the profile's base text, for `steps` or for as many as `flops` pays.

    Batch, rates and schedule are the base stage's, the vocabulary is the tokenizer's. Nothing is saved.
    `texts` are documents to read instead, `{"train": [...], "val": [...]}`.
    """
    if (steps is None) == (flops is None):
        raise ConfigError("train_size: say how long.\nGive either steps=... or flops=..., not both.")
    profile = override(profile, vocab_size=tokenizer.get_vocab_size())
    steps = steps if steps is not None else budget_steps(profile, width, flops or 0)
    if steps < 1:
        raise ConfigError(f"that does not pay for one step at width {width}.\nGive more steps or flops.")
    prepare_process()
    compute = choose_compute(profile.device, profile.dtype)
    torch.manual_seed(profile.seed)
    plan = profile.base
    model = GPT(config_of(profile, width)).to(compute.device)
    rates = learning_rates(profile)
    optimizers = build_optimizers(model, rates, ns_dtype=compute.dtype)
    rows, context = plan.device_batch_size, plan.max_seq_len

    def batches(split: str) -> PackedBatches:
        source = texts[split] if texts else text_source(profile.data or profile.source, split)
        return PackedBatches(source, tokenizer, rows, context, device=compute.device)

    train, unseen = batches("train"), batches("val")
    schedule = Schedule(steps, plan.warmup_ratio, plan.warmdown_ratio)
    began, tokens = time.perf_counter(), 0
    for record in fit(
        model, optimizers, train, schedule,
        micro_batches=plan.micro_batches, grad_clip=profile.grad_clip, compute=compute,
    ):  # fmt: skip
        tokens += record.tokens
    seconds = time.perf_counter() - began
    count = max(1, eval_tokens // (rows * context))
    with compute.autocast():
        loss = text_loss(model, (next(unseen) for _ in range(count)), tokenizer.token_bytes())
    return SizeResult(
        width, model.num_parameters(), tokens, float(model.flops_per_token()) * tokens,
        loss.nats, loss.bits_per_byte, seconds,
    )  # fmt: skip


def measure(
    profile: Profile,
    tokenizer: Tokenizer,
    widths: Sequence[int] = WIDTHS,
    budgets: Sequence[float] | None = None,
    *,
    longest: int = 2_500_000,
    report: Callable[[SizeResult], object] | None = None,
) -> list[SizeResult]:
    """Every width at every budget of floating-point operations, but for the pairs that make no sense.

    Left out are a large model with a small budget (under `FEWEST_STEPS` steps) and a small one with a large
    budget (over `longest` tokens: that takes long, and TinyWorld would be read twice). `report` gets each
    result when it is there.
    """
    results = []
    for flops in BUDGETS[profile.name] if budgets is None else budgets:
        for width in widths:
            steps = budget_steps(profile, width, flops)
            if steps < FEWEST_STEPS or steps * profile.base.total_batch_size > longest:
                continue
            results.append(train_size(profile, tokenizer, width, steps=steps))
            if report is not None:
                report(results[-1])
    return results


@dataclass(frozen=True)
class Law:
    """`value = scale * flops ** -exponent`: a straight line where both axes are logarithmic."""

    scale: float
    exponent: float

    def at(self, flops: float) -> float:
        return self.scale * flops**-self.exponent

    def flops_for(self, value: float) -> float:
        """What it costs to reach `value`."""
        return (self.scale / value) ** (1 / self.exponent)


def fit_law(points: Sequence[tuple[float, float]]) -> Law:
    """The line through the logarithms of `(flops, value)` points that misses them least (least squares).

    Raises ConfigError for fewer than two different `flops`, or for a number that has no logarithm.
    """
    if len({flops for flops, _ in points}) < 2 or min(map(min, points)) <= 0:
        raise ConfigError(
            "a line needs at least two points with different flops, all above 0.\nMeasure more."
        )
    xs, ys = [math.log(flops) for flops, _ in points], [math.log(value) for _, value in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
    return Law(math.exp(y - slope * x), -slope)


def by_budget(results: Iterable[SizeResult]) -> list[list[SizeResult]]:
    """The results in groups of about equal compute (within 40%), cheapest group first, by width."""
    groups: list[list[SizeResult]] = []
    for result in sorted(results, key=lambda one: one.flops):
        if groups and result.flops <= groups[-1][0].flops * 1.4:
            groups[-1].append(result)
        else:
            groups.append([result])
    return [sorted(group, key=lambda one: one.width) for group in groups]


def best_of_each(results: Iterable[SizeResult]) -> list[SizeResult]:
    """Of every group of equal compute the model that reads unseen text best."""
    return [min(group, key=lambda one: one.bits_per_byte) for group in by_budget(results)]


def saved_table(profile: str = "laptop") -> tuple[list[SizeResult], dict[str, Any]]:
    """The table measured once at a profile, and where it comes from: `(results, about)`.

    Where a profile has none, the table of another stands in; `about["profile"]` says which it is.
    """
    tables = _tables()
    content = tables.get(profile) or next(iter(tables.values()))
    return [SizeResult(**row) for row in content["results"]], content["about"]


def with_table(profile: Profile, results: Sequence[SizeResult]) -> str:
    """What `scaling.json` holds when the profile's table is replaced by these results."""
    about = {
        "profile": profile.name, "vocab_size": profile.vocab_size, "seed": profile.seed,
        "seconds": round(sum(result.seconds for result in results)),
        "command": f"python -m nanolab.lessons.scaling {profile.name}",
    }  # fmt: skip
    tables = {**_tables(), profile.name: {"about": about, "results": [asdict(one) for one in results]}}
    return json.dumps(tables, indent=1, sort_keys=True) + "\n"


def _tables() -> dict[str, Any]:
    file = resources.files("nanolab.lessons").joinpath(TABLE)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def place_of(model: GPT, tokenizer: Tokenizer, meta: dict[str, Any]) -> SizeResult:
    """Where a trained base model stands among the sizes; its training time is not known, so 0 seconds."""
    profile = get_profile(meta["profile"])
    tokens = meta["step"] * profile.base.total_batch_size
    rows, context = profile.base.device_batch_size, profile.base.max_seq_len
    batches = PackedBatches(text_source(profile.source, "val"), tokenizer, rows, context, device=model.device)
    loss = text_loss(
        model, (next(batches) for _ in range(EVAL_TOKENS // (rows * context))), tokenizer.token_bytes()
    )
    return SizeResult(
        model.config.n_embd, model.num_parameters(), tokens, float(model.flops_per_token()) * tokens,
        loss.nats, loss.bits_per_byte, 0.0,
    )  # fmt: skip


# ---- many machines, one step


def gradient_of(model: GPT, batches: Sequence[Batch], supervised: int) -> dict[str, Tensor]:
    """The gradient of the summed loss of `batches`, divided by `supervised` tokens, by parameter name.

    With the supervised tokens of the whole step it is one worker's share: the shares of all workers add up
    to the gradient that a single machine would have had.
    """
    model.zero_grad(set_to_none=True)
    for inputs, targets in batches:
        (model(inputs, targets, loss_reduction="sum") / max(1, supervised)).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def largest_gap(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference between two gradients, as a share of the largest entry of `b`."""
    top = max(grad.abs().max().item() for grad in b.values())
    return max((a[name] - b[name]).abs().max().item() for name in b) / max(top, 1e-30)


def main(arguments: Sequence[str]) -> None:
    """Measure the table of a profile and write it beside this file: a maintainer's command."""
    profile = get_profile(arguments[0] if arguments else None)
    tokenizer = train_tokenizer(profile, run_dir(f"scale-{profile.name}"))
    results = measure(profile, tokenizer, report=print)
    atomic_write(Path(__file__).parent / TABLE, with_table(profile, results))


if __name__ == "__main__":
    main(sys.argv[1:])
