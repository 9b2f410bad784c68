"""Measuring a model: bits per byte, right answers, multiple choice by likelihood, pass@k."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanolab.chat import render_for_completion
from nanolab.engine import Engine
from nanolab.model import GPT
from nanolab.tasks import Task
from nanolab.tinyworld.exam import ExamQuestion, exam_questions
from nanolab.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextLoss:
    """How surprised a model is by some text."""

    nats: float
    """mean loss of a supervised token"""
    bits_per_byte: float
    """the same surprise per byte of text, so that models with different tokenizers can be compared"""
    tokens: int


@torch.inference_mode()
def text_loss(model: GPT, batches: Iterable[tuple[Tensor, Tensor]], token_bytes: Sequence[int]) -> TextLoss:
    """Loss over `(inputs, targets)` batches, each `(B, T)`. `token_bytes[i]` is token i's length in bytes.

    Special tokens have no bytes: they count in the loss per token, but not in bits per byte. What is summed
    is summed on the CPU, in float64, which MPS does not have.
    """
    model.eval()
    sizes = torch.tensor(token_bytes)
    nats, text_nats, tokens, text_bytes = 0.0, 0.0, 0, 0
    for inputs, targets in batches:
        losses = model(inputs, targets, loss_reduction="none").cpu().double()
        targets = targets.cpu()
        supervised = targets >= 0
        lengths = torch.where(supervised, sizes[targets.clamp_min(0)], 0)
        nats += losses.sum().item()
        text_nats += losses[lengths > 0].sum().item()
        tokens += int(supervised.sum())
        text_bytes += int(lengths.sum())
    return TextLoss(nats / max(1, tokens), text_nats / max(1, text_bytes) / math.log(2), tokens)


@dataclass(frozen=True)
class Score:
    """How many answers were right."""

    right: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.right / max(1, self.total)

    @property
    def standard_error(self) -> float:
        """Of the accuracy, as a binomial share."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / max(1, self.total))

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} ({self.right}/{self.total})"


def answers(
    engine: Engine,
    task: Task,
    count: int,
    *,
    num_samples: int = 1,
    max_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
    rows: int = 128,
) -> list[list[bool]]:
    """For each of the task's first `count` examples, whether each of `num_samples` answers was right.

    `rows` answers are generated at a time. Temperature 0 takes the likeliest token each time. A question
    that does not fit the model's context counts as not answered.
    """
    examples = [task[i] for i in range(min(count, len(task)))]
    prompts = [render_for_completion(engine.tokenizer, example) for example in examples]
    fitting = [i for i, prompt in enumerate(prompts) if len(prompt) < engine.model.config.sequence_len]
    results = [[False] * num_samples for _ in examples]
    step = max(1, rows // num_samples)
    for start in range(0, len(fitting), step):
        part = fitting[start : start + step]
        groups = engine.generate_batch(
            [prompts[i] for i in part], num_samples=num_samples, max_tokens=max_tokens,
            temperature=temperature, top_k=top_k, seed=seed + start,
        )  # fmt: skip
        for i, group in zip(part, groups, strict=True):
            texts = [engine.completion_text(sample) for sample in group]
            results[i] = [bool(task.evaluate(examples[i], text)) for text in texts]
    return results


def accuracy(engine: Engine, task: Task, count: int, **sampling) -> Score:
    """Share of right answers over the task's first `count` examples; keywords as for `answers`."""
    flat = [right for group in answers(engine, task, count, **sampling) for right in group]
    return Score(sum(flat), len(flat))


def converse(engine: Engine, asked: Sequence[Sequence[str]], *, max_tokens: int = 96) -> list[str]:
    """The model's likeliest answer to the last turn of each conversation; the user's turns are given.

    What the model says to the turns before is its own, too. A conversation that does not fit the model's
    context is answered with "".
    """
    conversations: list[list[dict[str, str]]] = [[] for _ in asked]
    for number in range(max(map(len, asked), default=0)):
        going_on = [i for i, turns in enumerate(asked) if number < len(turns)]
        prompts = []
        for i in going_on:
            conversations[i].append({"role": "user", "content": asked[i][number]})
            prompts.append(render_for_completion(engine.tokenizer, {"messages": conversations[i]}))
        fits = [len(prompt) < engine.model.config.sequence_len for prompt in prompts]
        samples = engine.generate_batch(
            [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit],
            max_tokens=max_tokens, temperature=0.0,
        )  # fmt: skip
        texts = iter(engine.completion_text(group[0]) for group in samples)
        for i, fit in zip(going_on, fits, strict=True):
            reply = next(texts) if fit else ""
            conversations[i].append({"role": "assistant", "content": reply})
    return [messages[-1]["content"] if messages else "" for messages in conversations]


@dataclass(frozen=True)
class ExamAnswer:
    """What a model said to a question of the exam, and whether it is right."""

    question: ExamQuestion
    reply: str
    right: bool


def exam_answers(engine: Engine, every: int = 1) -> list[ExamAnswer]:
    """The exam (`tinyworld/exam.py`), or one in `every` of its questions, answered and marked."""
    questions = exam_questions()[::every]
    replies = converse(engine, [question.turns for question in questions])
    return [
        ExamAnswer(question, reply, question.marks(reply))
        for question, reply in zip(questions, replies, strict=True)
    ]


def exam_scores(engine: Engine) -> dict[str, Score]:
    """Right answers to the exam within TinyWorld, and "I don't know" outside of it."""
    answered, scores = exam_answers(engine), {}
    for outside, name in ((False, "exam"), (True, "exam, outside its world")):
        right = [one.right for one in answered if one.question.outside == outside]
        scores[name] = Score(sum(right), len(right))
    return scores


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that at least one of `k` answers is right, from `right` of `samples` drawn: the unbiased
    estimate 1 - C(n - c, k) / C(n, k) (Chen et al., 2021, "Evaluating LLMs trained on code", eq. 1)."""
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


@torch.inference_mode()
def choice_accuracy(model: GPT, tokenizer: Tokenizer, task: Task, count: int, rows: int = 32) -> Score:
    """Multiple choice by likelihood: the letter the model finds likeliest among those on offer.

    Needs no well-formed answer, so it measures what is known apart from how it is said. A question that
    does not fit the model's context counts as wrong.
    """
    model.eval()
    bos = tokenizer.get_bos_token_id()
    examples = [task[i] for i in range(min(count, len(task)))]
    prompts = [render_for_completion(tokenizer, example) for example in examples]
    fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= model.config.sequence_len]
    right = 0
    for start in range(0, len(fitting), rows):
        part = fitting[start : start + rows]
        padded = [torch.tensor(prompts[i]) for i in part]
        idx = torch.nn.utils.rnn.pad_sequence(padded, batch_first=True, padding_value=bos)
        logits = model(idx.to(model.device))
        for row, i in enumerate(part):
            letters = examples[i]["letters"]
            ids = [tokenizer.encode(letter)[0] for letter in letters]
            best = letters[int(logits[row, len(prompts[i]) - 1, ids].argmax())]
            right += best == examples[i]["messages"][-1]["content"]
    return Score(right, len(examples))
