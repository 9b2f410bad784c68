"""What notebooks 00 and 99 show: the machine, its speed, all stages in a minute, the stages in numbers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nanolab import doctor
from nanolab.chat import render_for_completion
from nanolab.checkpoint import find_checkpoint
from nanolab.compute import choose_compute
from nanolab.engine import Engine
from nanolab.evals import text_loss
from nanolab.expect import bands
from nanolab.model import GPT
from nanolab.paths import home, run_dir
from nanolab.profiles import STAGES, Profile, get_profile, override
from nanolab.runlog import Log
from nanolab.stages import open_stage
from nanolab.tokenizer import Tokenizer
from nanolab.viz.output import number

MISSING = "not trained here yet"
DATA = {
    "tinyworld": {
        "base": "TinyWorld: encyclopedia, stories, explanations, sums",
        "mid": "TinyTalk, TinyMMLU, TinyGSM, identity, spelling",
        "sft": "TinyTalk, TinyARC, TinyGSM, identity, spelling",
        "rl": "TinyGSM",
    },
    "hub": {
        "base": "FineWeb-EDU",
        "mid": "SmolTalk, MMLU, GSM8K, identity, spelling",
        "sft": "ARC, GSM8K, SmolTalk, identity, spelling",
        "rl": "GSM8K",
    },
}
"""What each stage reads, by the profile's source."""
WORKSHEET = {
    "base": "11.1 → 5.9",
    "mid": "up, then down to 4.5",
    "sft": "4.5 → 4.2",
    "rl": "0% right throughout",
}
"""What the workshop's own sheet says of its runs; nobody measured it here."""


# ---- the machine


def machine() -> list[dict[str, str]]:
    """The doctor's findings as rows of a table; a row with a remedy is a problem.

    Paths are left out: `nanolab doctor` on the command line has them.
    """
    compute = choose_compute()
    findings = [*doctor.environment(), *doctor.storage(), *doctor.arithmetic(quick=True)]
    findings.append(doctor.compare_devices(compute))
    return [
        {
            "": "PROBLEM" if finding.remedy else "ok",
            "what": finding.name,
            "found": _without_paths(finding.found),
            "what to do": " ".join(finding.remedy.split()),
        }
        for finding in findings
    ]


def _without_paths(text: str) -> str:
    name = "$NANOLAB_HOME" if os.environ.get("NANOLAB_HOME") else "~/.cache/nanolab"
    text = text.replace(str(home()), name)
    text = text.replace(sys.executable, f"in the environment {Path(sys.prefix).name}")
    return " ".join(text.replace(str(Path.home()), "~").split())


@dataclass(frozen=True)
class Speed:
    """How fast this machine is with the model of a profile."""

    profile: Profile
    trained: float
    """tokens a second in training"""
    sampled: float
    """tokens a second in sampling, many answers at once"""

    def minutes(self, name: str) -> dict[str, float]:
        """Estimated minutes of each stage of the profile `name`, scaled by its arithmetic per token."""
        other = get_profile(name)
        share = doctor.arithmetic_per_token(self.profile) / doctor.arithmetic_per_token(other)
        return doctor.stage_minutes(other, self.trained * share, self.sampled * share)


def measure(name: str = "laptop") -> Speed:
    """The speed with the model of the profile `name`: takes some seconds."""
    profile, compute = get_profile(name), choose_compute()
    return Speed(profile, doctor.training_rate(profile, compute), doctor.sampling_rate(profile, compute))


def minutes_table(speed: Speed, names: Sequence[str]) -> list[dict[str, Any]]:
    """One row a profile: the estimated minutes of its stages, and of all of them."""
    rows = []
    for name in names:
        minutes = speed.minutes(name)
        minutes["all"] = sum(minutes.values())
        rows.append({"profile": name} | {stage: round(value, 1) for stage, value in minutes.items()})
    return rows


# ---- the whole pipeline, small


def small(share: float = 1.0) -> Profile:
    """The smoke profile, with `share` of its steps in the supervised stages."""
    profile = get_profile("smoke")
    for stage in STAGES[:-1]:
        steps = max(1, round(share * profile.plan(stage).num_iterations))
        profile = override(profile, stage, num_iterations=steps)
    return profile


@dataclass(frozen=True)
class TourStep:
    """One training step on the way from random weights to the last stage."""

    stage: str
    seconds: float
    """of training since the first step of the first stage"""
    loss: float
    """nats a token; in rl, which has no such loss, on held-out conversations of the sft stage"""


def pipeline(profile: Profile, tag: str) -> Iterator[TourStep]:
    """Train all stages of the run `tag`, one after the other; what it has already is told again first.

    Stopping ends the stage with its model saved, and the stages after it are left out.
    """
    clock = 0.0
    for stage in STAGES:
        work = open_stage(profile, stage, tag)
        for row in work.log.rows():
            if row.get("stage") != stage:
                continue
            clock += row.get("seconds", 0.0)
            for key in {"loss", "talk_loss"} & set(row):
                yield TourStep(stage, clock, row[key])
        for record in work.steps():
            clock += record.seconds
            if stage == "rl":
                loss = talk_loss(profile, tag, work.model)
                work.log.add(stage=stage, step=record.index, talk_loss=loss)
            else:
                loss = record.loss
            yield TourStep(stage, clock, loss)
        if work.stopped:
            return


def talk_loss(profile: Profile, tag: str, model: GPT) -> float:
    """Loss in nats on a few batches of held-out conversations of the run's sft stage."""
    sft = open_stage(profile, "sft", tag)
    batches = islice(sft.batches_of("val"), 4)  # type: ignore[union-attr]
    return text_loss(model, batches, sft.tokenizer.token_bytes()).nats


def rewards(tag: str) -> list[float]:
    """The mean reward of each rl step of a run, 0 to 1."""
    return [row["reward"] for row in Log(run_dir(tag)).rows() if row.get("stage") == "rl" and "reward" in row]


def stages_of(tag: str) -> list[str]:
    """The stages of which a run has a checkpoint."""
    return [stage for stage in STAGES if find_checkpoint(run_dir(tag), stage, missing_ok=True)]


def speak(model: GPT, tokenizer: Tokenizer, start: str, question: str, length: int = 24) -> dict[str, str]:
    """How a model continues the text `start`, and how it answers `question`: `length` tokens each at most.

    What it wrote ends in "■" where the model ended it, and in "…" where it was cut off.
    """
    model.eval()
    engine = Engine(model, tokenizer)
    conversation = {"messages": [{"role": "user", "content": question}]}
    prompts = {
        f"continues {start!r}": [tokenizer.get_bos_token_id(), *tokenizer.encode(start)],
        f"answers {question!r}": render_for_completion(tokenizer, conversation),
    }
    spoken = {}
    for name, ids in prompts.items():
        ((sample,),) = engine.generate_batch([ids], max_tokens=length, temperature=0.0)
        text = " ".join(engine.completion_text(sample).split())
        spoken[name] = f"{text} {'■' if sample.finished else '…'}"
    return spoken


def compute_of(profile: Profile) -> float:
    """Floating-point operations of the supervised stages of a profile."""
    tokens = sum(
        profile.plan(stage).num_iterations * profile.plan(stage).total_batch_size for stage in STAGES[:-1]
    )
    return float(tokens) * doctor.arithmetic_per_token(profile)


# ---- the stages in numbers


def overview(names: Sequence[str]) -> list[dict[str, Any]]:
    """One row a stage: its steps and what it reads, in each of the profiles."""
    return [
        {"stage": stage, **{name: _in_a_word(get_profile(name), stage) for name in names}} for stage in STAGES
    ]


def _in_a_word(profile: Profile, stage: str) -> str:
    if stage == "rl":
        answers = profile.rl.num_iterations * profile.rl.examples_per_step * profile.rl.num_samples
        return f"{profile.rl.num_iterations:,} steps, {answers:,} answers"
    plan = profile.plan(stage)
    return f"{plan.num_iterations:,} steps, {number(plan.num_iterations * plan.total_batch_size)} tokens"


def model_numbers(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The model of each profile, a row a number."""
    columns = {}
    for name in names:
        profile = get_profile(name)
        columns[name] = {
            "layers": profile.depth,
            "width (channels)": profile.n_embd,
            "heads": profile.n_head,
            "vocabulary (tokens)": profile.vocab_size,
            "context (tokens)": profile.sequence_len,
            "FLOPs to train on one token": number(doctor.arithmetic_per_token(profile)),
            "text and tasks": "built in" if profile.source == "tinyworld" else "downloaded once",
        }
    return _turned(columns)


def card(stage: str, names: Sequence[str], trained: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The reference card of a stage, a row a number and a column a profile.

    `trained`: the tag of this machine's run of a profile, as from `own_runs`; its log tells the losses.
    """
    columns = {}
    for name in names:
        profile = get_profile(name)
        numbers = _rl_numbers(profile) if stage == "rl" else _plan_numbers(profile, stage)
        if profile.source == "hub":
            result = f"{WORKSHEET[stage]} (the worksheet's)"
        else:
            result = outcome(trained[name], stage) if name in trained else MISSING
        what = "held-out problems right" if stage == "rl" else "loss (nats)"
        columns[name] = {"data": DATA[profile.source][stage], **numbers, what: result}
    return _turned(columns)


def _plan_numbers(profile: Profile, stage: str) -> dict[str, Any]:
    plan = profile.plan(stage)
    return {
        "steps": plan.num_iterations,
        "tokens a step": plan.total_batch_size,
        "tokens a row": plan.max_seq_len,
        "tokens read in all": plan.num_iterations * plan.total_batch_size,
        "learning rate of the matrices": f"{profile.matrix_lr * plan.init_lr_frac:g}",
    }


def _rl_numbers(profile: Profile) -> dict[str, Any]:
    plan = profile.rl
    return {
        "steps": plan.num_iterations,
        "problems a step": plan.examples_per_step,
        "answers to each problem": plan.num_samples,
        "longest answer (tokens)": plan.max_new_tokens,
        "learning rate of the matrices": f"{profile.matrix_lr * plan.init_lr_frac:g}",
        "weight of the KL penalty": plan.kl_weight,
    }


def own_runs() -> dict[str, str]:
    """For the profiles smoke and laptop, the learner's own run, else another of this machine."""
    tags = {"smoke": ("mine-smoke", "scratch-tour"), "laptop": ("mine", "course")}
    found = {name: next((tag for tag in choices if stages_of(tag)), "") for name, choices in tags.items()}
    return {name: tag for name, tag in found.items() if tag}


def outcome(tag: str, stage: str) -> str:
    """`6.93 → 3.10`, the first and the last loss of a stage in a run's log; accuracies for rl."""
    rows = [row for row in Log(run_dir(tag)).rows() if row.get("stage") == stage]
    if stage == "rl":
        scores = [row["validation"] for row in rows if "validation" in row]
        shares = [f"{100 * score['right'] / max(1, score['total']):.0f}%" for score in scores]
        return f"{shares[0]} → {shares[-1]}" if shares else MISSING
    losses = [row["loss"] for row in rows if "loss" in row]
    return f"{losses[0]:.2f} → {losses[-1]:.2f}" if losses else MISSING


def usual(topic: str) -> list[dict[str, Any]]:
    """All bands of a topic as rows: what is usual at smoke and at laptop, and the cause when it is not."""
    return [
        {
            "measure": band["what"],
            "unit": band.get("unit", ""),
            "smoke": _span(band.get("smoke")),
            "laptop": _span(band.get("laptop")),
            "if lower": band["low"],
            "if higher": band["high"],
        }
        for name, band in sorted(bands().items())
        if name.split("/")[0] == topic
    ]


def _span(ends: Sequence[float] | None) -> str:
    return f"{number(ends[0])} to {number(ends[1])}" if ends else ""


def guesses() -> dict[str, str]:
    """The learner's predictions so far: question and guess."""
    try:
        kept = json.loads((home() / "predictions.json").read_text(encoding="utf-8"))
        return {str(question): str(guess) for question, guess in kept.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _turned(columns: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`{profile: {row: value}}` as `{row: {profile: value}}`."""
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    return {row: {name: column.get(row, "") for name, column in columns.items()} for row in rows}
