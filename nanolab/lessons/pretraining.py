"""What notebook 03 measures around base training: the data, samples on the way, small trial trainings."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import torch

from nanolab.compute import Compute, choose_compute, prepare_process
from nanolab.corpus import text_source
from nanolab.data import PackedBatches
from nanolab.engine import Engine
from nanolab.errors import ConfigError
from nanolab.evals import text_loss
from nanolab.model import GPT
from nanolab.optim import Schedule, build_optimizers
from nanolab.paths import run_dir
from nanolab.profiles import Profile, override
from nanolab.stages import SupervisedStage, learning_rates, model_config
from nanolab.tinyworld.facts import TIER_WEIGHT, Fact, facts
from nanolab.tokenizer import Tokenizer
from nanolab.train import Batch, StepRecord, fit

if TYPE_CHECKING:
    from nanolab.course import Course

SENTENCE_END = re.compile(r"(?<=[.!?])\s")


# ---- the data


def told(documents: Iterable[str]) -> Counter[Fact]:
    """How often each fact of TinyWorld is told in these documents, in any of its phrasings.

    Counts whole sentences only: the few phrasings of two sentences are missed.
    """
    by_sentence = {sentence: fact for fact in facts() for sentence in fact.statements}
    seen = (by_sentence.get(sentence) for text in documents for sentence in SENTENCE_END.split(text))
    return Counter(fact for fact in seen if fact is not None)


def tier_rows(counts: Counter[Fact]) -> list[dict[str, str | int | float]]:
    """A row a tier: how many facts it has, how often each was told on average, and the one told most."""
    rows: list[dict[str, str | int | float]] = []
    for tier in TIER_WEIGHT:
        of_tier = [fact for fact in facts() if fact.tier == tier]
        most = max(of_tier, key=lambda fact: counts[fact])
        times = sum(counts[fact] for fact in of_tier) / len(of_tier)
        rows.append(
            {"tier": tier, "facts": len(of_tier), "times each was told": times,
             "told most": most.canonical(), "its times": counts[most]}
        )  # fmt: skip
    return rows


def histogram(values: Sequence[int], width: int, last: int) -> dict[str, float]:
    """Share of the values in bins of `width` from 0, in %; what is `last` or more shares the last bin."""
    if not values:
        raise ConfigError("there is nothing to count.\nGive at least one number.")
    edges = range(0, last + 1, width)
    counts = Counter(min(value, last) // width * width for value in values)
    names = {edge: f"{edge}–{edge + width - 1}" if edge < last else f"{edge}+" for edge in edges}
    return {name: 100 * counts[edge] / len(values) for edge, name in names.items()}


# ---- a model growing up


def milestones(steps: int, count: int = 7) -> list[int]:
    """Steps to look at: 0, then doubling up to the last one. `milestones(320)` -> 0, 10, 20, ... 160, 320."""
    return sorted({0, *(max(1, round(steps / 2**halvings)) for halvings in range(count - 1))})


class Growth:
    """A panel of what the model writes after some of its steps: display it, and update it as it fills.

    The samples are kept in the run's log, so that a finished stage shows its childhood again.
    """

    def __init__(self, stage: SupervisedStage, prompts: Sequence[str], max_tokens: int = 28) -> None:
        self.stage, self.prompts, self.max_tokens = stage, list(prompts), max_tokens
        self.steps = milestones(stage.schedule.steps)
        self.samples: dict[int, list[str]] = {
            row["step"]: row["samples"] for row in stage.log.rows()
            if row.get("stage") == stage.name and row.get("prompts") == self.prompts
        }  # fmt: skip
        if stage.start in self.steps and stage.start not in self.samples:
            self.write(stage.start)

    def due(self, record: StepRecord) -> bool:
        """Whether this step is one to look at."""
        return record.index + 1 in self.steps and record.index + 1 not in self.samples

    def write(self, step: int) -> None:
        """Let the model go on from each prompt, and keep what it wrote after `step` steps."""
        engine, tokenizer = Engine(self.stage.model, self.stage.tokenizer), self.stage.tokenizer
        prompts = [[tokenizer.get_bos_token_id(), *tokenizer.encode(prompt)] for prompt in self.prompts]
        groups = engine.generate_batch(prompts, max_tokens=self.max_tokens, temperature=0.7, seed=step)
        texts = [group[0].ids[:-1] if group[0].finished else group[0].ids for group in groups]
        self.samples[step] = ["".join(map(_readable, tokenizer.decode(ids))) for ids in texts]
        self.stage.log.add(stage=self.stage.name, step=step, prompts=self.prompts, samples=self.samples[step])

    def _rows(self) -> list[list[str]]:
        nothing = ["…"] * len(self.prompts)
        return [[f"{step:,}", *self.samples.get(step, nothing)] for step in self.steps]

    def __repr__(self) -> str:
        rows = [[f"step {row[0]}", *row[1:]] for row in self._rows()]
        return "\n".join(" | ".join(row) for row in [["after", *self.prompts], *rows])

    def _repr_html_(self) -> str:
        left = 'align="left" style="text-align:left"'
        head = "".join(f"<th {left}>{html.escape(prompt)} …</th>" for prompt in self.prompts)
        lines = []
        for step, *samples in self._rows():
            cells = "".join(f"<td {left}>{html.escape(sample)}</td>" for sample in samples)
            lines.append(f'<tr><td align="right">{step}</td>{cells}</tr>')
        return f"<table><thead><tr><th>step</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _readable(char: str) -> str:
    """A character that can be shown: what has no picture becomes a dot."""
    return char if char.isprintable() else "·"


# ---- small trainings beside the real one


@dataclass
class Trial:
    """A small model trained for a while, and its losses in nats as `(step, loss)`."""

    model: GPT
    train: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)

    def curve(self, name: str = "train", smooth: int = 1) -> tuple[list[int], list[float]]:
        """Steps and losses of a series, each the mean of up to `smooth` values that end there."""
        points = self.train if name == "train" else self.validation
        losses = [loss for _, loss in points]
        means = []
        for i in range(len(losses)):
            window = losses[max(0, i + 1 - smooth) : i + 1]
            means.append(sum(window) / len(window))
        return [step for step, _ in points], means

    def last(self, count: int = 5) -> float:
        """Mean training loss of the last `count` steps."""
        losses = [loss for _, loss in self.train[-count:]]
        return sum(losses) / len(losses)

    @property
    def best(self) -> tuple[int, float]:
        """Step and value of the lowest validation loss."""
        return min(self.validation, key=lambda point: point[1])


def small_profile(profile: Profile, tokenizer: Tokenizer) -> Profile:
    """The profile with a model of depth 2, for side experiments, and this tokenizer's vocabulary."""
    return override(profile, depth=2, vocab_size=tokenizer.get_vocab_size())


def base_batches(
    profile: Profile,
    tokenizer: Tokenizer,
    split: str = "train",
    *,
    rows: int | None = None,
    documents: Sequence[str] | None = None,
) -> PackedBatches:
    """Batches as the base stage packs them, of its own text or of the given documents, on the CPU."""
    source = documents if documents is not None else text_source(profile.data or profile.source, split)
    return PackedBatches(source, tokenizer, rows or profile.base.device_batch_size, profile.base.max_seq_len)


def trial(
    profile: Profile,
    tokenizer: Tokenizer,
    steps: int,
    *,
    rows: int = 4,
    batches: Iterator[Batch] | None = None,
    adamw: float | None = None,
    validate_every: int = 0,
) -> Trial:
    """Train a fresh model of depth 2 for `steps` of `rows` rows; all else is as in the base stage.

    batches: other data than the base stage's. adamw: train the matrices with AdamW at this rate instead
    of Muon. validate_every: steps between validation losses, on base text never trained on; 0 for none.
    """
    prepare_process()
    profile = small_profile(profile, tokenizer)
    compute = choose_compute(profile.device, profile.dtype)
    torch.manual_seed(profile.seed)
    model = GPT(model_config(profile)).to(compute.device)
    rates = learning_rates(profile)
    optimizers = build_optimizers(model, rates, ns_dtype=compute.dtype)
    if adamw is not None:
        matrices = model.transformer["h"].parameters()
        optimizers[1] = torch.optim.AdamW(matrices, lr=adamw, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0)
        optimizers[1].param_groups[0]["initial_lr"] = adamw
    found = Trial(model)
    held_out = first(base_batches(profile, tokenizer, "val"), 3) if validate_every else []

    def validate(step: int) -> None:
        found.validation.append((step, nats(model, held_out, tokenizer, compute)))
        model.train()

    if validate_every:
        validate(0)
    source = batches if batches is not None else base_batches(profile, tokenizer, rows=rows)
    moved = ((x.to(compute.device), y.to(compute.device)) for x, y in source)
    schedule = Schedule(steps, profile.base.warmup_ratio, profile.base.warmdown_ratio)
    for record in fit(model, optimizers, moved, schedule, grad_clip=profile.grad_clip, compute=compute):
        found.train.append((record.index, record.loss))
        if validate_every and (record.index + 1) % validate_every == 0:
            validate(record.index + 1)
    return found


def first(batches: Iterable[Batch], count: int) -> list[Batch]:
    """The first `count` batches of an endless stream."""
    return list(islice(batches, count))


def nats(model: GPT, batches: Iterable[Batch], tokenizer: Tokenizer, compute: Compute | None = None) -> float:
    """Mean loss of a token of these batches, in nats."""
    compute = compute or Compute(model.device, torch.float32, "default")
    moved = ((x.to(model.device), y.to(model.device)) for x, y in batches)
    with compute.autocast():
        return text_loss(model, moved, tokenizer.token_bytes()).nats


def practice_stage(course: Course, tokenizer: Tokenizer, steps: int) -> SupervisedStage:
    """A base stage with a model of depth 2 in a run that is emptied first: to press Stop without regret."""
    run = run_dir(course.scratch("stop"))
    tokenizer.save(run / "tokenizer.json")
    profile = override(small_profile(course.profile, tokenizer), "base", num_iterations=steps, eval_every=-1)
    return SupervisedStage(profile, "base", run.name)


def reopened(stage: SupervisedStage) -> SupervisedStage:
    """The same stage, opened again from what is on disk."""
    return SupervisedStage(stage.profile, stage.name, stage.run.name, compute=stage.compute)
