"""What notebook 06 measures around reinforcement learning: groups, one update, pass@k, controls, seeds."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nanolab.checkpoint import find_checkpoint
from nanolab.compute import Compute, choose_compute, prepare_process
from nanolab.engine import Engine, Sample
from nanolab.evals import answers, pass_at_k
from nanolab.grpo import RLRecord, Rollout, grpo, rollout_batches, sample_rollout, token_logprobs
from nanolab.lessons.problems import calls
from nanolab.model import GPT
from nanolab.optim import Schedule, build_optimizers
from nanolab.paths import run_dir
from nanolab.profiles import Profile, RLPlan, override
from nanolab.stages import ReinforcementStage, learning_rates
from nanolab.tasks import Task
from nanolab.tokenizer import Tokenizer
from nanolab.viz import LivePlot
from nanolab.viz.output import COLOURS, GREY, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nanolab.course import Course


STEP_BY_HAND = 0.2
"""Learning rate of the plain gradient step that notebook 06 takes by hand."""

# ---- one group


@dataclass(frozen=True)
class Group:
    """Several answers to one problem."""

    question: str
    rollout: Rollout
    texts: list[str]
    planted: str = ""
    """"right" or "wrong" where the last answer was put in by hand, since the model gave none such"""

    @property
    def rewards(self) -> Tensor:
        """`(1, samples)`"""
        return self.rollout.rewards

    def rows(self) -> list[dict[str, Any]]:
        """A row an answer: its text and its reward."""
        return [
            {"answer": text.replace("\n", " ↵ "), "reward": reward}
            for text, reward in zip(self.texts, self.rewards[0].tolist(), strict=True)
        ]


def groups_of(engine: Engine, task: Task, count: int, plan: RLPlan, seed: int = 0) -> list[Group]:
    """The answers of a model to the first problems of a task, rewarded."""
    engine.model.eval()
    count = min(count, len(task))
    rollout = sample_rollout(engine, task, range(count), plan, seed=seed)
    return [
        Group(
            task[i]["messages"][0]["content"],
            Rollout([rollout.prompts[i]], [rollout.samples[i]], rollout.rewards[i : i + 1]),
            [engine.completion_text(sample) for sample in rollout.samples[i]],
        )
        for i in range(count)
    ]


def teachable_group(engine: Engine, task: Task, plan: RLPlan, tries: int = 24, seed: int = 0) -> Group:
    """The group, among the first problems, whose share of right answers is nearest to three in eight.

    Where none has both right and wrong answers, a worked answer stands in for the last sample: that of this
    problem, or that of another one where a wrong answer is missing.
    """
    groups = groups_of(engine, task, tries, plan, seed)
    best = min(groups, key=lambda group: abs(group.rewards.mean().item() - 3 / 8))
    mean = best.rewards.mean().item()
    if 0 < mean < 1:
        return best
    index, missing = groups.index(best), "wrong" if mean else "right"
    others = [index] if missing == "right" else range(index + 1, len(task))
    for other in others:
        sample = worked_sample(engine.tokenizer, task, other)
        samples = [*best.rollout.samples[0][:-1], sample]
        texts = [engine.completion_text(one) for one in samples]
        rewards = torch.tensor([[task.reward(task[index], text) for text in texts]])
        if rewards[0, -1] != mean:
            break
    return Group(best.question, Rollout(best.rollout.prompts, [samples], rewards), texts, missing)


def worked_sample(tokenizer: Tokenizer, task: Task, index: int) -> Sample:
    """The worked answer of a task as if the model had sampled it."""
    from nanolab.chat import render_conversation

    ids, mask = render_conversation(tokenizer, task[index])
    start = ids.index(tokenizer.encode_special("<|assistant_start|>")) + 1
    return Sample(ids[start:], mask[start:], finished=True)


def token_pushes(group: Group, advantages: Tensor, number: int) -> list[float]:
    """For answer `number`, the push that each token gets: its answer's advantage, 0 where a tool wrote."""
    advantage = float(advantages[0, number])
    return [advantage if chosen else 0.0 for chosen in group.rollout.samples[0][number].mask]


@torch.no_grad()
def answer_logprobs(model: GPT, group: Group, pad: int) -> list[float]:
    """The log-probability of each whole answer of a group, in nats, over the tokens that the model chose."""
    model.eval()
    compute = Compute(model.device, torch.float32, "default")
    found = []
    for sample in group.rollout.samples[0]:
        one = Rollout(group.rollout.prompts, [[sample]], torch.ones(1, 1))
        batches = rollout_batches(one, torch.ones(1, 1), 1, pad, model.device)
        found.append(sum(token_logprobs(model, x, y, compute).sum().item() for x, y, _ in batches))
    return found


def group_picture(group: Group, advantages: Tensor) -> Figure:
    """A group as rows of text, with an arrow for each: up where it beats the group's mean, down where not."""
    values, rewards = advantages[0].tolist(), group.rewards[0].tolist()
    mean = sum(rewards) / len(rewards)
    figure = new_figure(7.2, 0.9 + 0.36 * len(values))
    axes = figure.add_subplot()
    order = sorted(range(len(values)), key=lambda i: -values[i])
    largest = max(1e-6, *(abs(value) for value in values))
    for row, i in enumerate(order):
        colour = COLOURS[0] if values[i] > 0 else COLOURS[1] if values[i] < 0 else GREY
        axes.text(-1.05, row, f"{rewards[i]:.0f}", va="center", ha="right", fontsize=9, color=INK)
        axes.text(-0.12, row, f"{values[i]:+.2f}", va="center", ha="right", fontsize=9, color=colour)
        if values[i]:
            tip = -0.42 if values[i] > 0 else 0.42
            size = 1 + 2.5 * abs(values[i]) / largest
            axes.annotate(
                "", (0.12, row + 0.8 * tip), (0.12, row - 0.8 * tip),
                arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": size},
            )  # fmt: skip
        text = group.texts[i].replace("\n", " ↵ ")
        text = text if len(text) <= 76 else f"{text[:44]} … {text[-29:]}"
        axes.text(0.4, row, text, va="center", fontsize=8,
                  family="monospace", color=INK, parse_math=False)  # fmt: skip
    for x, name in ((-1.05, "reward"), (-0.12, "advantage")):
        axes.text(x, -0.85, name, ha="right", va="center", fontsize=9, color=GREY)
    axes.text(
        0.4, -0.85, f"answer (the group's mean reward is {mean:.2f})", va="center", fontsize=9, color=GREY
    )
    axes.set(xlim=(-1.6, 6.6), ylim=(len(values) - 0.4, -1.3))
    axes.axis("off")
    return figure


# ---- pass@k


def pass_curve(results: Sequence[Sequence[bool]], ks: Sequence[int]) -> list[float]:
    """pass@k in %, averaged over problems, for each k; `results[problem][sample]` says which were right."""
    return [
        100 * sum(pass_at_k(len(group), sum(group), k) for group in results) / max(1, len(results))
        for k in ks
    ]


def try_often(engine: Engine, task: Task, count: int, samples: int, max_tokens: int = 96) -> list[list[bool]]:
    """Which of `samples` answers to each of `count` problems are right, at temperature 1."""
    engine.model.eval()
    return answers(engine, task, count, num_samples=samples, max_tokens=max_tokens, temperature=1.0)


def chance_of_variance(p: float, samples: int) -> float:
    """The chance that `samples` answers, each right with chance p, are neither all right nor all wrong."""
    return 1 - p**samples - (1 - p) ** samples


# ---- trainings beside the real one


class Dials:
    """Two live plots beside the reward: the length of answers, and groups and endings as shares."""

    def __init__(self, stage: ReinforcementStage) -> None:
        total = stage.schedule.steps
        self.length = LivePlot(
            "tokens an answer", title="How long are the answers?", series=("length",), smooth=0, total=total,
            alt="Mean length of an answer through rl",
        )  # fmt: skip
        self.shares = LivePlot(
            "share", title="Groups that teach nothing, and answers that end",
            series=("groups without variance", "answers that end"), smooth=0, total=total, ylim=(0.0, 1.0),
            alt="Share of groups without variance and of answers that end through rl",
        )  # fmt: skip
        for row in stage.log.rows():
            if row.get("stage") == "rl" and "reward" in row:
                self._add(row["step"], row["length"], row["without_variance"], row["finished"])
        self._open = ExitStack()

    def _add(self, step: int, length: float, without: float, finished: float) -> None:
        self.length.add("length", step, length)
        self.shares.add("groups without variance", step, without)
        self.shares.add("answers that end", step, finished)

    def add(self, record: RLRecord) -> None:
        """One more step."""
        self._add(record.index, record.length, record.without_variance, record.finished)

    def __enter__(self) -> Dials:
        self._open.enter_context(self.length)
        self._open.enter_context(self.shares)
        return self

    def __exit__(self, *details: Any) -> bool | None:
        return self._open.__exit__(*details)


def control_stage(course: Course, work: ReinforcementStage) -> ReinforcementStage:
    """The same stage with its rewards dealt out at random, in a run of its own that is emptied first."""
    run = run_dir(course.scratch("shuffled"))
    run.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(work.run / "tokenizer.json", run / "tokenizer.json")
    parent = find_checkpoint(work.run, "sft")
    shutil.copytree(parent, run / "sft" / parent.name)
    profile = override(work.profile, "rl", shuffle_rewards=True, save_every=10_000)
    return ReinforcementStage(profile, "rl", run.name, compute=work.compute)


@dataclass
class SideRun:
    """A copy of a model after some steps of GRPO on another task."""

    model: GPT
    records: list[RLRecord]

    def curve(self, name: str = "reward") -> tuple[list[int], list[float]]:
        """Steps, and one of the records' values."""
        return [record.index + 1 for record in self.records], [getattr(r, name) for r in self.records]


def side_run(
    model: GPT, tokenizer: Tokenizer, profile: Profile, task: Task, steps: int, **plan: Any
) -> SideRun:
    """GRPO on any task from a copy of a model; `plan` changes fields of the profile's. Nothing is saved."""
    prepare_process()
    compute = choose_compute(profile.device, profile.dtype)
    student, start = (copy.deepcopy(model).to(compute.device) for _ in range(2))
    changed = replace(profile.rl, **plan)
    rates = learning_rates(profile)
    optimizers = build_optimizers(student, rates, fraction=changed.init_lr_frac, ns_dtype=compute.dtype)
    records = grpo(
        student, Engine(student, tokenizer), optimizers, task, changed, Schedule(steps, warmdown_ratio=0.0),
        seed=profile.seed, grad_clip=profile.grad_clip, reference=start.eval(), compute=compute,
    )  # fmt: skip
    run = SideRun(student, list(records))
    student.eval()
    return run


def habits(model: GPT, tokenizer: Tokenizer, task: Task, count: int, seed: int = 0) -> dict[str, Any]:
    """How a model answers `count` problems, one sample each at temperature 1, and one answer to look at."""
    engine = Engine(model.eval(), tokenizer)
    plan = RLPlan(1, count, 1, max_new_tokens=96)
    rollout = sample_rollout(engine, task, range(min(count, len(task))), plan, seed=seed)
    texts = [engine.completion_text(sample) for (sample,) in rollout.samples]
    right = [task.evaluate(task[i], text) for i, text in enumerate(texts)]
    return {
        "reward": rollout.rewards.mean().item(), "right (%)": 100 * sum(right) / len(right),
        "calls an answer": sum(map(calls, texts)) / len(texts), "an answer": texts[0].replace("\n", " ↵ "),
    }  # fmt: skip


# ---- results


def validations(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """(step, held-out accuracy in %) of rl, as a run's log has it; the last one where a step has several."""
    found = {
        row["step"]: 100 * row["validation"]["right"] / max(1, row["validation"]["total"])
        for row in rows
        if row.get("stage") == "rl" and "validation" in row
    }
    return sorted(found.items())


def seeds() -> dict[str, Any]:
    """What was measured for the course over several seeds: rl_seeds.json."""
    return json.loads(
        resources.files("nanolab.lessons").joinpath("rl_seeds.json").read_text(encoding="utf-8")
    )


def _measured(data: Mapping[str, Any]) -> dict[str, Any]:
    """The curve of each measured run by its name; None where it is missing."""
    return {
        **{f"seed {seed}": curve for seed, curve in data["seeds"].items()},
        "shuffled rewards": data.get("shuffled"),
        "shuffled, no KL penalty": data.get("shuffled_without_kl"),
    }


def seed_rows(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a run: accuracy before and after rl in %, and the gain in points; or "not measured yet"."""
    rows: list[dict[str, Any]] = []
    for name, curve in _measured(data).items():
        if not curve:
            rows.append({"run": name, "before (%)": "not measured yet", "after (%)": "", "gain (points)": ""})
            continue
        (_, first, *_), (_, last, *_) = curve[0], curve[-1]
        rows.append(
            {"run": name, "before (%)": 100 * first, "after (%)": 100 * last,
             "gain (points)": 100 * (last - first)}
        )  # fmt: skip
    return rows


def seed_curves(data: Mapping[str, Any]) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and held-out accuracy in % of every measured run, by its name."""
    return {
        name: ([step for step, *_ in curve], [100 * accuracy for _, accuracy, *_ in curve])
        for name, curve in _measured(data).items()
        if curve
    }


def behind(data: Mapping[str, Any], profile: str) -> dict[str, list[tuple[float, float]]]:
    """The measured control run, to be drawn in grey; nothing where it is missing or of another profile."""
    if data.get("profile") != profile or not data.get("shuffled"):
        return {}
    return {"shuffled rewards, held-out": [(step, accuracy) for step, accuracy, *_ in data["shuffled"]]}
