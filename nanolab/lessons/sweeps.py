"""What challenge 2 trains: the same small model again and again, changing nothing but the learning rate."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from nanolab.compute import Compute, choose_compute, prepare_process
from nanolab.errors import ConfigError
from nanolab.lessons.pretraining import base_batches, first, nats, small_profile
from nanolab.model import GPT
from nanolab.optim import Schedule, build_optimizers
from nanolab.profiles import Profile
from nanolab.stages import learning_rates, model_config
from nanolab.tinyworld.documents import documents
from nanolab.tokenizer import Tokenizer
from nanolab.train import Batch, Diverged, fit
from nanolab.viz import LivePlot
from nanolab.viz.live import SMOOTH_FROM

if TYPE_CHECKING:
    from nanolab.course import Course

OPTIMIZERS = ("Muon", "AdamW")
ROWS = 4
"""rows of text a step: half of what base trains on, since here many models are trained"""
HELD_OUT = 2
"""batches of validation text, each of twice as many rows"""


@dataclass
class SweepRun:
    """The log of one training: a fresh small model at one constant learning rate."""

    optimizer: str
    rate: float
    losses: list[float] = field(default_factory=list)
    """training loss of each step in nats: `losses[0]` is that of step 1"""
    validation: dict[int, float] = field(default_factory=dict)
    """loss in nats on text never trained on, by the number of steps taken before it was measured"""

    @property
    def name(self) -> str:
        return f"{self.optimizer} {self.rate:g}"

    def curve(self, smooth: int = 5) -> tuple[list[int], list[float]]:
        """Steps and losses, each the mean of up to `smooth` values that end there."""
        windows = [self.losses[max(0, end - smooth) : end] for end in range(1, len(self.losses) + 1)]
        return list(range(1, len(self.losses) + 1)), [sum(some) / len(some) for some in windows]


def plenty(split: str, tokens: int) -> list[str]:
    """TinyWorld texts of a split with more than `tokens` tokens in all, so that none is read twice.

    Six characters a token are more than any tokenizer of this course needs.
    """
    found, characters = [], 0
    for text in documents(split):
        found.append(text)
        characters += len(text)
        if characters > 6 * tokens:
            break
    return found


def marks_of(steps: int) -> list[int]:
    """The three steps of the worksheet's table: a fifth of the way, three fifths, the end (100, 300, 500)."""
    return [max(1, steps // 5), max(1, 3 * steps // 5), steps]


def sweep(
    course: Course,
    tokenizer: Tokenizer,
    rates: Sequence[float],
    steps: int,
    *,
    optimizer: str = "Muon",
    behind: Mapping[float, SweepRun] | None = None,
) -> dict[float, SweepRun]:
    """Train a fresh model of depth 2 at each rate, all of them in one live plot; `{rate: its log}`.

    Same start, same text in the same order; the rate stays what it is from the first step to the last.
    `optimizer` is that of the weight matrices; embedding and head have theirs, as always. Validation losses
    are measured at `marks_of(steps)`. A training whose loss is no longer a number ends there. `behind`:
    earlier runs, drawn in grey.
    """
    if optimizer not in OPTIMIZERS:
        raise ConfigError(f"optimizer={optimizer!r}: choose one of {', '.join(OPTIMIZERS)}.")
    if not isinstance(rates, Collection) or not rates or any(isinstance(r, str) or r < 0 for r in rates):
        raise ConfigError(f"rates={rates!r}: give a list of numbers, none below 0, such as [0.03, 0.06].")
    prepare_process()
    profile = small_profile(course.profile, tokenizer)
    compute = choose_compute(profile.device, profile.dtype)
    context = profile.base.max_seq_len
    new, kept = plenty("train", steps * ROWS * context), plenty("val", HELD_OUT * 2 * ROWS * context)
    text = first(base_batches(profile, tokenizer, rows=ROWS, documents=new), steps)
    held_out = first(base_batches(profile, tokenizer, rows=2 * ROWS, documents=kept), HELD_OUT)
    runs = {rate: SweepRun(optimizer, rate) for rate in rates}
    names = [run.name for run in runs.values()]
    grey = {run.name: list(zip(*run.curve(), strict=True)) for run in (behind or {}).values()}
    many = "1 learning rate" if len(runs) == 1 else f"{len(runs)} learning rates"
    plot = LivePlot(
        title=f"{optimizer} at {many}", series=names, total=steps, behind=grey,
        smooth=dict.fromkeys(names, 5) if steps >= 2 * SMOOTH_FROM else 0,
        alt=f"Training loss of a small model at {many} of {optimizer}",
    )  # fmt: skip
    with plot:
        for run in runs.values():
            plot.caption = f"training at {run.rate:g}"
            for step, loss in _train(run, profile, text, held_out, tokenizer, compute):
                plot.add(run.name, step, loss)
        plot.caption = ""
    return runs


def _train(
    run: SweepRun,
    profile: Profile,
    text: Sequence[Batch],
    held_out: Sequence[Batch],
    tokenizer: Tokenizer,
    compute: Compute,
) -> Iterator[tuple[int, float]]:
    """Fill in a run's log, and yield `(step, loss)` after each step."""
    torch.manual_seed(profile.seed)
    model = GPT(model_config(profile)).to(compute.device)
    muon = run.rate if run.optimizer == "Muon" else profile.matrix_lr
    rates = replace(learning_rates(profile), matrix=muon)
    optimizers = build_optimizers(model, rates, ns_dtype=compute.dtype)
    if run.optimizer == "AdamW":
        matrices = model.transformer["h"].parameters()
        optimizers[1] = torch.optim.AdamW(
            matrices, lr=run.rate, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0
        )
        optimizers[1].param_groups[0]["initial_lr"] = run.rate
    moved = ((x.to(compute.device), y.to(compute.device)) for x, y in text)
    schedule = Schedule(len(text), warmdown_ratio=0.0)
    marks = marks_of(len(text))
    try:
        for record in fit(model, optimizers, moved, schedule, grad_clip=profile.grad_clip, compute=compute):
            run.losses.append(record.loss)
            if record.index + 1 in marks:
                run.validation[record.index + 1] = nats(model, held_out, tokenizer, compute)
                model.train()
            yield record.index + 1, record.loss
    except Diverged:
        run.losses.append(math.nan)
