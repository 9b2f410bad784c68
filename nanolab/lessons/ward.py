"""Challenge 8: the six trainings that lessons/broken.py breaks, with any of the six functions exchanged."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from nanolab.chat import render_conversation, render_for_completion
from nanolab.compute import choose_compute, prepare_process
from nanolab.engine import Engine
from nanolab.errors import ConfigError, NanolabError
from nanolab.grpo import Rollout, policy_loss, rollout_batches, sample_rollout, token_logprobs
from nanolab.lessons.broken import FAULTY, Part, points, rate_at
from nanolab.lessons.exam import one_line
from nanolab.lessons.finetuning import loss_by_writer, talk_batches
from nanolab.lessons.midtraining import asked
from nanolab.lessons.pretraining import base_batches, first, nats, small_profile
from nanolab.lessons.reinforcement import habits
from nanolab.lessons.sweeps import plenty
from nanolab.model import GPT
from nanolab.optim import Schedule, build_optimizers, clip_gradients
from nanolab.profiles import RLPlan
from nanolab.stages import conversations, learning_rates, model_config
from nanolab.tasks import TinyGSM
from nanolab.tasks.base import Conversation, reply_text
from nanolab.tasks.gsm8k import extract_answer
from nanolab.tinyworld.documents import documents
from nanolab.tokenizer import Tokenizer
from nanolab.train import Batch, Diverged, fit
from nanolab.viz import LivePlot

if TYPE_CHECKING:
    from nanolab.course import Course

# ---- patients


@dataclass
class Patient:
    """A model after one of the trainings, and the curves that it left."""

    case: str
    model: GPT
    tokenizer: Tokenizer
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    rewards: list[list[list[float]]] = field(default_factory=list)
    """of the cases with rewards: those of each step, `[group][answer]`"""
    ended: str = ""
    """the error that ended the training, if one did"""

    def last(self, name: str = "train", count: int = 5) -> float:
        """Mean of the last `count` values of a curve."""
        values = [value for _, value in self.curves[name][-count:]]
        return sum(values) / len(values)

    def write(self, beginning: str, max_tokens: int = 24) -> str:
        """The likeliest continuation of a text; the error where the model can't write any more."""
        return self._go_on([self.tokenizer.get_bos_token_id(), *self.tokenizer.encode(beginning)], max_tokens)

    def reply(self, question: str, max_tokens: int = 40) -> str:
        """The likeliest reply to a question; the error where the model can't write any more."""
        return self._go_on(render_for_completion(self.tokenizer, asked(question)), max_tokens)

    def _go_on(self, prompt: list[int], max_tokens: int) -> str:
        engine = Engine(self.model.eval(), self.tokenizer)
        try:
            ((sample,),) = engine.generate_batch([prompt], max_tokens=max_tokens, temperature=0.0)
        except NanolabError as error:
            # Without the advice in its second line: that blames the learning rate.
            return f"(no answer: {str(error).splitlines()[0]})"
        return one_line(engine.completion_text(sample))


class _Paid(TinyGSM):
    """Word problems whose answers are paid by any function of (reply, right answer)."""

    def __init__(self, split: str, paid: Part) -> None:
        super().__init__(split, 500, steps=(1,))
        self.paid = paid

    def reward(self, conversation: Conversation, completion: str) -> float:
        return float(self.paid(completion, extract_answer(reply_text(conversation))))


@dataclass(frozen=True)
class _Stairs(Schedule):
    """A schedule that asks a function for its rates."""

    peak: float = 1.0
    warmup: int = 1
    part: Part = rate_at

    def __call__(self, step: int) -> float:
        return float(self.part(step, self.peak, self.warmup)) / self.peak


# ---- the trainings


class Ward:
    """Where the six trainings run: `run("A")` as found, `run("A", mended, before)` with a function mended."""

    def __init__(self, course: Course) -> None:
        self.course, self.pick = course, course.pick
        self.chat_model, self.tokenizer, _ = course.load("sft")
        self.profile = small_profile(course.profile, self.tokenizer)
        self.compute = choose_compute(self.profile.device, self.profile.dtype)
        prepare_process()

    @cached_property
    def base_model(self) -> GPT:
        return self.course.load("base")[0]

    def run(self, case: str, part: Part | None = None, before: Patient | None = None) -> Patient:
        """Train a case under a live plot, with the function as found or with `part` in its place.

        `before` is drawn in grey. Raises ConfigError for a case that there is not.
        """
        if case not in FAULTY:
            raise ConfigError(f"there is no case {case!r}.\nThe cases are {', '.join(FAULTY)}.")
        trainings = {
            "A": self._shifted, "B": self._warmed_up, "C": self._held_out, "D": self._chat,
            "E": self._groups, "F": self._paid,
        }  # fmt: skip
        patient, values = trainings[case](part or FAULTY[case])
        about = f"Case {case}, {'as it was found' if part is None else 'with your function'}"
        rewarded = case in ("E", "F")
        grey = {f"{name}, as found": curve for name, curve in before.curves.items()} if before else {}
        with LivePlot(
            "mean reward" if rewarded else "loss (nats)", title=about, series=(), smooth=0, behind=grey,
            alt=f"Training curve of case {about[5:]}",
        ) as plot:  # fmt: skip
            try:
                for name, step, value in values:
                    patient.curves.setdefault(name, []).append((step, value))
                    plot.add(name, step, value)
            except NanolabError as error:
                patient.ended = plot.caption = one_line(str(error)).split(" ↵ ")[0]
        patient.model.eval()
        return patient

    def _fresh(self) -> GPT:
        torch.manual_seed(self.profile.seed)
        return GPT(model_config(self.profile)).to(self.compute.device)

    def _copy(self, model: GPT) -> GPT:
        return copy.deepcopy(model).to(self.compute.device)

    def _text(self, batches: int, split: str = "train") -> Iterator[Batch]:
        """TinyWorld, four rows a batch; no text comes twice in so many batches."""
        texts = plenty(split, batches * 4 * self.profile.base.max_seq_len)
        return base_batches(self.profile, self.tokenizer, rows=4, documents=texts)

    def _optimizers(self, model: GPT, fraction: float = 1.0) -> list[torch.optim.Optimizer]:
        rates = learning_rates(self.profile)
        return build_optimizers(model, rates, fraction=fraction, ns_dtype=self.compute.dtype)

    def _fit(
        self,
        model: GPT,
        batches: Iterator[Batch],
        schedule: Schedule,
        held_out: Mapping[str, Sequence[Batch]] | None = None,
    ) -> Iterator[tuple[str, int, float]]:
        """`(curve, step, value)` of a training with the library's loop; a dozen validations, if any."""
        device, every = self.compute.device, max(1, schedule.steps // 12)
        moved = ((x.to(device), y.to(device)) for x, y in batches)
        optimizers = self._optimizers(model)
        for record in fit(
            model, optimizers, moved, schedule, grad_clip=self.profile.grad_clip, compute=self.compute
        ):
            yield "train", record.index + 1, record.loss
            if (record.index + 1) % every == 0:
                for name, some in (held_out or {}).items():
                    yield name, record.index + 1, nats(model, some, self.tokenizer, self.compute)
                model.train()

    def _shifted(self, cut: Part) -> tuple[Patient, Iterator[tuple[str, int, float]]]:
        model, context = self._fresh(), self.profile.base.max_seq_len
        steps = self.pick(laptop=60, smoke=12)
        batches = (cut(torch.cat([x.flatten(), y[-1, -1:]]), 4, context) for x, y in self._text(steps))
        return Patient("A", model, self.tokenizer), self._fit(model, batches, Schedule(steps))

    def _warmed_up(self, rate: Part) -> tuple[Patient, Iterator[tuple[str, int, float]]]:
        model, steps = self._fresh(), self.pick(laptop=60, smoke=12)
        stairs = _Stairs(steps, peak=self.profile.matrix_lr, warmup=steps // 4, part=rate)
        return Patient("B", model, self.tokenizer), self._fit(model, self._text(steps), stairs)

    def _held_out(self, split: Part) -> tuple[Patient, Iterator[tuple[str, int, float]]]:
        model, found = self._fresh(), list(first_texts(24))
        # As texts from the web come: some of them twice.
        training, validation = split([*found, *found[:3]], 6)
        batches = base_batches(self.profile, self.tokenizer, rows=4, documents=training)
        kept = first(base_batches(self.profile, self.tokenizer, rows=2, documents=validation), 2)
        schedule = Schedule(self.pick(laptop=72, smoke=24))
        return Patient("C", model, self.tokenizer), self._fit(model, batches, schedule, {"validation": kept})

    def _chat(self, targets: Part) -> tuple[Patient, Iterator[tuple[str, int, float]]]:
        model, steps = self._copy(self.base_model), self.pick(laptop=36, smoke=4)
        answers, everything = (self._new_conversations(who) for who in ("assistant", "all"))
        questions = [
            (x, both.masked_fill(own >= 0, -1))
            for (x, both), (_, own) in zip(everything, answers, strict=True)
        ]
        held_out = {"new answers": answers, "new questions": questions}
        batches = self._conversations(targets, rows=self.pick(laptop=8, smoke=4))
        schedule = Schedule(steps, warmdown_ratio=0.5)
        return Patient("D", model, self.tokenizer), self._fit(model, batches, schedule, held_out)

    def _new_conversations(self, supervise: str) -> list[Batch]:
        """Held-out batches, with targets as the library gives them."""
        batches = talk_batches(self.profile, self.tokenizer, "val", supervise, rows=4)
        return first(batches, self.pick(laptop=4, smoke=1))

    def _conversations(self, targets_of: Part, rows: int) -> Iterator[Batch]:
        """Batches of `rows` conversations, one a row, with the targets that a function gives each."""
        task, pad = conversations(self.profile, "sft"), self.tokenizer.get_bos_token_id()
        longest = self.base_model.config.sequence_len + 1
        number = 0
        while True:
            inputs, targets = [], []
            for _ in range(rows):
                ids, mask = render_conversation(self.tokenizer, task[number % len(task)], longest)
                inputs.append(torch.tensor(ids[:-1]))
                targets.append(targets_of(torch.tensor(ids), torch.tensor(mask)))
                number += 1
            yield (
                torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True, padding_value=pad),
                torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-1),
            )

    def _groups(self, advantages: Part) -> tuple[Patient, Iterator[tuple[str, int, float]]]:
        patient = Patient("E", self._copy(self.chat_model), self.tokenizer)
        plan = RLPlan(self.pick(laptop=16, smoke=3), 1, self.pick(laptop=8, smoke=4))
        return patient, self._practise(patient, right_number, plan, advantages)

    def _paid(self, paid: Part) -> tuple[Patient, Iterator[tuple[str, int, float]]]:
        patient = Patient("F", self._copy(self.chat_model), self.tokenizer)
        steps, problems, samples = self.pick(laptop=(8, 8, 8), smoke=(2, 2, 4))
        plan = RLPlan(steps, problems, samples)
        return patient, self._practise(patient, paid, plan, lambda r: r - r.mean(dim=1, keepdim=True))

    def _practise(
        self, patient: Patient, paid: Part, plan: RLPlan, advantages: Part
    ) -> Iterator[tuple[str, int, float]]:
        """GRPO in short, with any reward and any advantages."""
        model, pad, task = patient.model, self.tokenizer.get_bos_token_id(), _Paid("train", paid)
        engine, optimizers = Engine(model, self.tokenizer), self._optimizers(model, fraction=0.2)
        for index in range(plan.num_iterations):
            numbers = range(index * plan.examples_per_step, (index + 1) * plan.examples_per_step)
            model.eval()
            rollout: Rollout = sample_rollout(engine, task, numbers, plan, seed=index)
            patient.rewards.append(rollout.rewards.tolist())
            yield "mean reward", index + 1, rollout.rewards.mean().item()
            model.train()
            weights, tokens = advantages(rollout.rewards), max(1, rollout.sampled_tokens)
            for inputs, targets, gain in rollout_batches(rollout, weights, 64, pad, model.device):
                logprobs = token_logprobs(model, inputs, targets, self.compute)
                policy_loss(logprobs, gain, targets >= 0, denominator=tokens).backward()
            norm = clip_gradients(model, self.profile.grad_clip)
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad(set_to_none=True)
            if not norm.isfinite():
                raise Diverged(f"the gradient of step {index + 1} is {norm.item()}: the weights are lost.")

    # ---- questions to a patient

    def fresh_loss(self, patient: Patient) -> float:
        """Loss in nats on text that no training of this notebook has seen."""
        return nats(patient.model, first(self._text(4, "val"), 4), self.tokenizer, self.compute)

    def copies(self, patient: Patient) -> float:
        """How often the token that the model finds likeliest to come is the one it has just read, in %."""
        inputs, _ = next(self._text(1, "val"))
        with torch.no_grad():
            likeliest = patient.model(inputs.to(patient.model.device)).argmax(dim=-1).cpu()
        return 100 * (likeliest == inputs).float().mean().item()

    def losses_by_writer(self, patient: Patient) -> dict[str, float]:
        """Loss in nats on new conversations, by who writes the token: user, assistant or calculator."""
        return loss_by_writer(patient.model, self._new_conversations("all"), self.tokenizer)

    def habits(self, model: GPT) -> dict[str, Any]:
        """How a model answers new word problems: reward as found, right answers in %, calls, an example."""
        return habits(model, self.tokenizer, _Paid("val", points), self.pick(laptop=48, smoke=4))


def first_texts(count: int) -> list[str]:
    """The first texts of a TinyWorld of its own, which no other training reads."""
    source = documents("train", seed=8)
    return [next(source) for _ in range(count)]


def right_number(reply: str, answer: str) -> float:
    """1 where the number after `####` is the right one, else 0."""
    return float(extract_answer(reply) == answer)
