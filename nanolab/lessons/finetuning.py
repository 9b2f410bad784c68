"""What notebook 05 measures around loss mask and format: whom a model imitates, what faults look like."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from nanolab.chat import render_for_completion
from nanolab.compute import choose_compute, prepare_process
from nanolab.data import ConversationBatches
from nanolab.engine import Engine
from nanolab.errors import ConfigError
from nanolab.lessons.exam import Marked, Question, one_line, sit
from nanolab.lessons.pretraining import milestones
from nanolab.model import GPT
from nanolab.optim import Schedule, build_optimizers
from nanolab.profiles import Profile
from nanolab.stages import conversations, learning_rates
from nanolab.tokenizer import Tokenizer
from nanolab.train import Batch, fit

WRITERS = ("user", "assistant", "calculator")
SUPERVISION = ("answers", "everything", "answers without their end")

# ---- whom a model imitates


def writers(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Who writes each token of a conversation: one of `WRITERS`.

    The special tokens that the chat program puts in count as the user's, up to `<|assistant_start|>`.
    """
    special = tokenizer.encode_special
    opens = {special("<|bos|>"): "user", special("<|output_start|>"): "calculator"}
    closes = {special("<|assistant_start|>"): "assistant", special("<|output_end|>"): "assistant"}
    closes[special("<|assistant_end|>")] = "user"
    writer, found = "user", []
    for id in ids:
        writer = opens.get(id, writer)
        found.append(writer)
        writer = closes.get(id, writer)
    return found


@torch.no_grad()
def loss_by_writer(model: GPT, batches: Iterable[Batch], tokenizer: Tokenizer) -> dict[str, float]:
    """Mean loss of a token in nats, by who wrote the token that was to be predicted."""
    model.eval()
    losses: dict[str, list[float]] = defaultdict(list)
    for inputs, targets in batches:
        values = model(inputs.to(model.device), targets.to(model.device), loss_reduction="none").tolist()
        for row, wanted, of_row in zip(inputs.tolist(), targets.tolist(), values, strict=True):
            who = writers([*row, max(0, wanted[-1])], tokenizer)[1:]
            for writer, target, loss in zip(who, wanted, of_row, strict=True):
                if target >= 0:
                    losses[writer].append(loss)
    return {writer: sum(losses[writer]) / max(1, len(losses[writer])) for writer in WRITERS}


def talk_batches(
    profile: Profile, tokenizer: Tokenizer, split: str = "train", supervise: str = "assistant", rows: int = 2
) -> ConversationBatches:
    """Batches of the conversations of sft; `supervise` as in ConversationBatches."""
    task, context = conversations(profile, "sft", split), profile.sft.max_seq_len
    return ConversationBatches(task, tokenizer, rows, context, supervise=supervise, seed=profile.seed)


def without_ends(batches: Iterator[Batch], tokenizer: Tokenizer) -> Iterator[Batch]:
    """A classic bug: the token that ends an answer is left out of the loss, as if it were padding."""
    end = tokenizer.encode_special("<|assistant_end|>")
    return ((inputs, targets.masked_fill(targets == end, -1)) for inputs, targets in batches)


@dataclass
class ShortRun:
    """A copy of a model after a short fine-tuning."""

    model: GPT
    supervised: int = 0
    """tokens that counted in the loss"""
    read: int = 0
    """tokens read"""
    marks: dict[int, list[Marked]] = field(default_factory=dict)
    """by step: the answers to the exam"""


def short_sft(
    model: GPT,
    tokenizer: Tokenizer,
    profile: Profile,
    steps: int,
    *,
    learn: str = "answers",
    rows: int = 2,
    exam: Sequence[Question] = (),
    on_marks: Callable[[int, list[Marked]], None] | None = None,
) -> ShortRun:
    """Fine-tune a copy of a model on `rows` rows a step, at the rates of base. Nothing is saved.

    learn: which tokens count in the loss, one of `SUPERVISION`; the data are the same in all cases.
    exam: questions to ask at the run's milestones; `on_marks(step, answers)` hears of each.
    """
    if learn not in SUPERVISION:
        raise ConfigError(f"learn={learn!r}: choose one of {', '.join(SUPERVISION)}.")
    prepare_process()
    compute = choose_compute(profile.device, profile.dtype)
    run = ShortRun(copy.deepcopy(model).to(compute.device))
    supervise = "all" if learn == "everything" else "assistant"
    batches: Iterator[Batch] = talk_batches(profile, tokenizer, supervise=supervise, rows=rows)
    if learn == SUPERVISION[2]:
        batches = without_ends(batches, tokenizer)
    moved = ((x.to(compute.device), y.to(compute.device)) for x, y in batches)
    rates = learning_rates(profile)
    optimizers = build_optimizers(run.model, rates, ns_dtype=compute.dtype)
    stops = milestones(steps, 6) if exam else []

    def look(step: int) -> None:
        if step in stops:
            run.marks[step] = sit(run.model, tokenizer, exam)
            run.model.train()
            if on_marks is not None:
                on_marks(step, run.marks[step])

    look(0)
    schedule = Schedule(steps, warmdown_ratio=0.5)
    for record in fit(run.model, optimizers, moved, schedule, grad_clip=profile.grad_clip, compute=compute):
        run.supervised, run.read = run.supervised + record.supervised, run.read + record.tokens
        look(record.index + 1)
    run.model.eval()
    return run


def openings(
    model: GPT, tokenizer: Tokenizer, count: int = 4, max_tokens: int = 24, seed: int = 0
) -> list[str]:
    """What a model writes when it is given the user's turn: `count` samples at temperature 0.7."""
    engine, special = Engine(model.eval(), tokenizer), tokenizer.encode_special
    engine.ends = {*engine.ends, special("<|user_end|>")}
    prompt = [special("<|bos|>"), special("<|user_start|>")]
    (group,) = engine.generate_batch(
        [prompt], num_samples=count, max_tokens=max_tokens, temperature=0.7, seed=seed
    )
    return [one_line(tokenizer.decode(sample.ids)) for sample in group]


# ---- wrong formats


PROMPTS: Mapping[str, str] = {
    "as trained": "the prompt of training",
    "A": "the special tokens are typed as text",
    "B": "the question is not closed: no <|user_end|>, no <|assistant_start|>",
}


def build_prompt(tokenizer: Tokenizer, question: str, form: str) -> list[int]:
    """The prompt for a question in one of the forms of `PROMPTS`, right or wrong."""
    special = tokenizer.encode_special
    right = render_for_completion(tokenizer, {"messages": [{"role": "user", "content": question}]})
    if form == "as trained":
        return right
    if form == "A":
        return tokenizer.encode(f"<|bos|><|user_start|>{question}<|user_end|><|assistant_start|>")
    if form == "B":
        return [special("<|bos|>"), special("<|user_start|>"), *tokenizer.encode(question.rstrip("?."))]
    raise ConfigError(f"form={form!r}: choose one of {', '.join(PROMPTS)}.")


def replies_to(
    model: GPT, tokenizer: Tokenizer, questions: Sequence[Question], form: str, max_tokens: int = 40
) -> list[tuple[str, bool]]:
    """(reply with special tokens shown, whether it holds the right answer) to prompts of that form."""
    engine = Engine(model.eval(), tokenizer)
    prompts = [build_prompt(tokenizer, question.text, form) for question in questions]
    groups = engine.generate_batch(prompts, max_tokens=max_tokens, temperature=0.0)
    found: list[tuple[str, bool]] = []
    for question, (sample,) in zip(questions, groups, strict=True):
        right = question.task.evaluate(question.conversation, engine.completion_text(sample))
        found.append((one_line(tokenizer.decode(sample.ids)), bool(right)))
    return found
