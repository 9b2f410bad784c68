"""An exam for chat models: form and content of answers, marked apart, and questions that make them fail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from nanolab.chat import Conversation, calls_to_parts, render_for_completion
from nanolab.engine import Engine
from nanolab.lessons.pretraining import milestones
from nanolab.lessons.problems import calls
from nanolab.model import GPT
from nanolab.stages import SupervisedStage
from nanolab.tasks import FactRecall, OutsideQuestions, SimpleSpelling, Task, TinyGSM, TinyMMLU
from nanolab.tasks.base import pick, reply_text
from nanolab.tinyworld.outside import says_so
from nanolab.tokenizer import Tokenizer
from nanolab.train import StepRecord

LONGEST = 96
"""Tokens of room for an answer: a word problem of three steps takes about 90."""


@dataclass(frozen=True)
class Question:
    """One question of an exam, the kind of answer it wants, and the task that marks it."""

    kind: str
    task: Task
    conversation: Conversation

    @property
    def text(self) -> str:
        return self.conversation["messages"][0]["content"]

    @property
    def answer(self) -> str:
        return reply_text(self.conversation)


@dataclass(frozen=True)
class Marked:
    """A reply, and what it is worth."""

    question: Question
    reply: str
    """tool calls as `<<3+4=7>>`"""
    ended: bool
    """whether it gave the turn back"""
    form: bool
    """ended, and of the shape that this kind of question wants"""
    content: bool
    """the right answer stands in it"""


SHAPES = {
    "fact": r"[A-Z0-9][^\n]*[.!?]",
    "choice": r"[A-E]",
    "spelling": r"[a-z](-[a-z])+",
    "word problem": r"[^#]*=[^#]*\n#### -?[0-9.,]+",
}
"""What a reply looks like, right or wrong: a sentence, a letter, letters with hyphens, a worked answer."""


def has_shape(kind: str, reply: str) -> bool:
    """Whether a reply looks like an answer of its kind; what it says is not looked at."""
    return re.fullmatch(SHAPES[kind], reply.strip()) is not None


def exam(count: int, seed: int = 0) -> list[Question]:
    """`count` questions of each kind of `SHAPES`, none of which training shows."""
    tasks: dict[str, Task] = {
        "fact": FactRecall("common", seed=seed), "choice": TinyMMLU("val", seed=seed),
        "spelling": SimpleSpelling("val", seed=seed), "word problem": TinyGSM("val", seed=seed),
    }  # fmt: skip
    return [Question(kind, task, task[i]) for kind, task in tasks.items() for i in range(count)]


def sit(
    model: GPT, tokenizer: Tokenizer, questions: Sequence[Question], *, max_tokens: int = LONGEST,
    use_tools: bool = True,
) -> list[Marked]:  # fmt: skip
    """The model's likeliest answer to every question, marked. Leaves the model in eval mode."""
    engine, end = Engine(model.eval(), tokenizer), tokenizer.encode_special("<|assistant_end|>")
    prompts = [render_for_completion(tokenizer, question.conversation) for question in questions]
    groups = engine.generate_batch(prompts, max_tokens=max_tokens, temperature=0.0, use_tools=use_tools)
    marked = []
    for question, (sample,) in zip(questions, groups, strict=True):
        reply = engine.completion_text(sample)
        ended = sample.finished and sample.ids[-1] == end
        form = ended and has_shape(question.kind, reply)
        content = bool(question.task.evaluate(question.conversation, reply))
        marked.append(Marked(question, reply, ended, form, content))
    return marked


def two_ways(
    model: GPT, tokenizer: Tokenizer, problems: Sequence[Question], num_samples: int = 4, seed: int = 0
) -> dict[str, dict[str, float]]:
    """How a model works on word problems, at temperature 1: with the calculator or without, and how well.

    Per way: the share of the answers that go it, and the share of these that are right, both in %.
    """
    engine = Engine(model.eval(), tokenizer)
    prompts = [render_for_completion(tokenizer, problem.conversation) for problem in problems]
    groups = engine.generate_batch(
        prompts, num_samples=num_samples, max_tokens=LONGEST, temperature=1.0, seed=seed
    )
    marks: dict[str, list[bool]] = {"with the calculator": [], "in its head": []}
    for problem, samples in zip(problems, groups, strict=True):
        for sample in samples:
            reply = engine.completion_text(sample)
            way = "with the calculator" if calls(reply) else "in its head"
            marks[way].append(bool(problem.task.evaluate(problem.conversation, reply)))
    count = len(problems) * num_samples
    return {
        way: {"answers (%)": 100 * len(found) / count, "right (%)": 100 * sum(found) / max(1, len(found))}
        for way, found in marks.items()
    }


def percent(marked: Sequence[Marked], what: str, kind: str | None = None) -> float:
    """How many of the replies have `what` ("form", "content" or "ended"), in %; of one kind, or of all."""
    values = [getattr(one, what) for one in marked if kind in (None, one.question.kind)]
    return 100 * sum(values) / max(1, len(values))


class ExamProbe:
    """Form and content through a stage. The results are kept in the run's log, and shown again from there."""

    def __init__(self, stage: SupervisedStage, questions: Sequence[Question]) -> None:
        self.stage, self.questions = stage, list(questions)
        self.steps = milestones(stage.schedule.steps)
        self.found: dict[int, dict[str, float]] = {
            row["step"]: row["exam"]
            for row in stage.log.rows()
            if row.get("stage") == stage.name and "exam" in row
        }

    def points(self) -> list[tuple[str, int, float]]:
        """Everything measured so far, in order, as ("form right" or "content right", step, %)."""
        return [
            (name, step, self.found[step][name]) for step in sorted(self.found) for name in self.found[step]
        ]

    def measure(self, step: int) -> list[tuple[str, int, float]]:
        """Examine the model if `step` is one of the steps to look at; the new points, if any."""
        if step not in self.steps or step in self.found:
            return []
        marked = sit(self.stage.model, self.stage.tokenizer, self.questions)
        self.stage.model.train()
        self.found[step] = {
            "form right": percent(marked, "form"), "content right": percent(marked, "content")
        }  # fmt: skip
        self.stage.log.add(stage=self.stage.name, step=step, exam=self.found[step])
        return [(name, step, value) for name, value in self.found[step].items()]

    def after(self, record: StepRecord) -> list[tuple[str, int, float]]:
        """What `measure` gives after this step."""
        return self.measure(record.index + 1)


# ---- temperature


def variety(
    model: GPT, tokenizer: Tokenizer, questions: Sequence[Question], temperatures: Sequence[float],
    samples: int = 4, seed: int = 0,
) -> list[dict[str, float]]:  # fmt: skip
    """A row a temperature: % of sampled answers that are right, and different answers per question."""
    engine = Engine(model.eval(), tokenizer)
    prompts = [render_for_completion(tokenizer, question.conversation) for question in questions]
    rows = []
    for temperature in temperatures:
        groups = engine.generate_batch(
            prompts, num_samples=samples, max_tokens=LONGEST, temperature=temperature, seed=seed
        )
        texts = [[engine.completion_text(sample) for sample in group] for group in groups]
        right = [
            question.task.evaluate(question.conversation, text)
            for question, group in zip(questions, texts, strict=True)
            for text in group
        ]
        different = sum(len(set(group)) for group in texts) / len(texts)
        rows.append(
            {"temperature": temperature, "right (%)": 100 * sum(right) / len(right),
             "different answers": different}
        )  # fmt: skip
    return rows


# ---- making it fail


def hard_questions(count: int, seed: int = 0) -> dict[str, list[Question]]:
    """Questions by what makes them hard: words, facts and numbers that training showed often, or never."""
    known = [word for word in SimpleSpelling("train").words if len(word) <= 6]
    longest = sorted(SimpleSpelling("val").words, key=lambda word: (-len(word), word))[: max(2, count)]
    long = SimpleSpelling("val", longest, size=count, seed=seed)
    drawn = SimpleSpelling("train", known, size=count, seed=seed)
    facts = {tier: FactRecall(tier, seed=seed) for tier in ("common", "uncommon", "rare")}
    small, large = TinyGSM("val", steps=(1,), seed=seed), LargeSums(seed)
    two = TinyGSM("val", steps=(2,), seed=seed)
    found: dict[str, tuple[str, Task, Iterable[Conversation]]] = {
        "spell a short word it has seen": ("spelling", drawn, drawn),
        "spell a long word it has not": ("spelling", long, long),
        "a common fact": ("fact", facts["common"], facts["common"]),
        "an uncommon fact": ("fact", facts["uncommon"], facts["uncommon"]),
        "a rare fact": ("fact", facts["rare"], facts["rare"]),
        "a problem of one step": ("word problem", small, small),
        "a problem of two steps": ("word problem", two, two),
        "one step, numbers of three digits": ("word problem", large, large),
    }
    return {
        name: [Question(kind, task, one) for one in islice(examples, count)]
        for name, (kind, task, examples) in found.items()
    }


def outside_questions(count: int, seed: int = 0) -> list[Question]:
    """`count` questions from outside TinyWorld, none of them in training: right is "I don't know"."""
    task = OutsideQuestions("val", size=count, seed=seed)
    return [Question("fact", task, one) for one in task]


def admits(marked: Sequence[Marked]) -> float:
    """How many of the replies say "I don't know", in %."""
    return 100 * sum(says_so(one.reply) for one in marked) / max(1, len(marked))


class LargeSums(TinyGSM):
    """Word problems of one step whose numbers have three digits, where training's have one or two."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__("val", seed=seed, steps=(1,))

    def get_example(self, index: int) -> Conversation:
        rng = self._rng(index)
        a, b = 400 + int(rng.random() * 500), 100 + int(rng.random() * 300)
        name, other = pick(rng, ("Mia", "Tom", "Anna")), pick(rng, ("Ben", "Lily", "Sam"))
        things = pick(rng, ("apples", "cards", "coins", "stamps", "shells"))
        sign, result = ("-", a - b) if index % 2 else ("+", a + b)
        told = {
            "-": f"{name} gives {b} of them to {other}. How many {things} does {name} have left?",
            "+": f"{other} gives {name} {b} more. How many {things} does {name} have now?",
        }
        worked = f"{name} has {a} {sign} {b} = <<{a}{sign}{b}={result}>>{result} {things}.\n#### {result}"
        return {
            "messages": [
                {"role": "user", "content": f"{name} has {a} {things}. {told[sign]}"},
                {"role": "assistant", "content": calls_to_parts(worked)},
            ]
        }


# ---- showing


def one_line(text: str) -> str:
    """A text with line breaks and unreadable characters made visible."""
    shown = text.replace("\n", " ↵ ").strip()
    return "".join(char if char.isprintable() else "·" for char in shown)


def summary(marks: Mapping[int, Sequence[Marked]]) -> dict[str, tuple[list[int], list[float]]]:
    """Form and content by step, as lines."""
    steps = sorted(marks)
    return {
        f"{what} right": (steps, [percent(marks[step], what) for step in steps])
        for what in ("form", "content")
    }


def failures(marked: Sequence[Marked], count: int = 1) -> list[dict[str, str]]:
    """The first wrong replies as rows."""
    wrong = [one for one in marked if not one.content][:count]
    return [
        {"question": one.question.text, "reply": one_line(one.reply), "right": one_line(one.question.answer)}
        for one in wrong
    ]
