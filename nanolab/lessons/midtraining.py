"""What notebook 04 measures around midtraining: replies, loss by kind of token, forgetting, tool calls."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from nanolab.chat import Conversation, render_conversation, render_for_completion
from nanolab.compute import choose_compute, prepare_process
from nanolab.data import ConversationBatches
from nanolab.engine import Engine, Sample
from nanolab.lessons.pretraining import base_batches, milestones
from nanolab.model import GPT
from nanolab.optim import Schedule, build_optimizers
from nanolab.profiles import Profile
from nanolab.stages import SupervisedStage, conversations, learning_rates
from nanolab.tasks.tiny import FactRecall
from nanolab.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanolab.train import Batch, StepRecord, fit

KINDS = ("special", "user", "assistant", "digits")
EARLY_STEPS = 50
"""The spike is taken apart in the first steps of midtraining."""


# ---- asking


def asked(question: str) -> dict[str, Any]:
    """A conversation in which the user has said something, and nobody has answered."""
    return {"messages": [{"role": "user", "content": question}]}


def replies(
    model: GPT, tokenizer: Tokenizer, questions: Sequence[str], *, chat: bool, max_tokens: int = 40
) -> list[str]:
    """The likeliest continuation of each question, special tokens shown.

    `chat` puts it into the tokens of a conversation; without, it is the beginning of a document.
    """
    engine, bos = Engine(model.eval(), tokenizer), tokenizer.get_bos_token_id()
    prompts = [
        render_for_completion(tokenizer, asked(question)) if chat else [bos, *tokenizer.encode(question)]
        for question in questions
    ]
    groups = engine.generate_batch(prompts, max_tokens=max_tokens, temperature=0.0)
    return [tokenizer.decode(group[0].ids).replace("\n", " ↵ ").strip() for group in groups]


def hands_over(texts: Sequence[str]) -> float:
    """How many of these replies end by giving the turn back, with `<|assistant_end|>`, in %."""
    return 100 * sum(text.endswith("<|assistant_end|>") for text in texts) / max(1, len(texts))


# ---- loss by kind of token


def token_kinds(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """What each token of a row is: "special", "digits", or a word of the "user" or of the "assistant".

    Digits are digits, whoever says them. What comes back from a tool counts as the assistant's.
    """
    special = {tokenizer.encode_special(name): name for name in SPECIAL_TOKENS}
    speaker, kinds = "user", []
    for id in ids:
        name = special.get(id)
        if name is not None:
            speaker = {"<|user_start|>": "user", "<|assistant_start|>": "assistant"}.get(name, speaker)
            kinds.append("special")
        else:
            kinds.append("digits" if tokenizer.decode([id]).strip().isdigit() else speaker)
    return kinds


@dataclass(frozen=True)
class KindLoss:
    """One kind of token in some batches."""

    nats: float
    """mean loss of a token of this kind"""
    share: float
    """of all tokens, how many are of this kind, in %"""
    part: float
    """nats that the kind adds to the mean loss of all tokens; the parts of all kinds add up to it"""


@torch.no_grad()
def loss_by_kind(model: GPT, batches: Iterable[Batch], tokenizer: Tokenizer) -> dict[str, KindLoss]:
    """The loss of conversations, taken apart by the kind of the token that was to be predicted."""
    losses: dict[str, list[float]] = defaultdict(list)
    for inputs, targets in batches:
        values = model(inputs.to(model.device), targets.to(model.device), loss_reduction="none").tolist()
        for row, wanted, of_row in zip(inputs.tolist(), targets.tolist(), values, strict=True):
            kinds = token_kinds([*row, max(0, wanted[-1])], tokenizer)[1:]
            for kind, target, loss in zip(kinds, wanted, of_row, strict=True):
                if target >= 0:
                    losses[kind].append(loss)
    total = max(1, sum(map(len, losses.values())))
    return {
        kind: KindLoss(sum(of) / max(1, len(of)), 100 * len(of) / total, sum(of) / total)
        for kind, of in ((kind, losses[kind]) for kind in KINDS)
    }


class SpikeProbe:
    """Loss by kind of token, measured on the same conversations at some of a stage's first steps.

    `parent` is the model before the stage. The measurements are kept in the run's log, so that a finished
    stage shows them again; one that was trained elsewhere shows only its two ends.
    """

    def __init__(self, stage: SupervisedStage, parent: GPT, batches: int = 2) -> None:
        self.stage = stage
        self.batches = list(islice(stage.batches_of("val"), batches))
        self.steps = milestones(min(EARLY_STEPS, stage.schedule.steps))
        self.found: dict[int, dict[str, KindLoss]] = {
            row["step"]: {kind: KindLoss(**values) for kind, values in row["kinds"].items()}
            for row in stage.log.rows()
            if row.get("stage") == stage.name and "kinds" in row
        }
        if 0 not in self.found:
            self.measure(0, parent)
        if stage.start > max(self.found) and stage.finished and len(self.found) == 1:
            self.measure(stage.start)

    def due(self, record: StepRecord) -> bool:
        """Whether to measure after this step."""
        return record.index + 1 in self.steps and record.index + 1 not in self.found

    def measure(self, step: int, model: GPT | None = None) -> None:
        """Measure the stage's model, or the given one, which has taken `step` steps."""
        self.found[step] = loss_by_kind(model or self.stage.model, self.batches, self.stage.tokenizer)
        kinds = {kind: vars(values) for kind, values in self.found[step].items()}
        self.stage.log.add(stage=self.stage.name, step=step, kinds=kinds)

    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """A line a kind: steps, and mean loss of a token in nats."""
        steps = sorted(self.found)
        return {kind: (steps, [self.found[step][kind].nats for step in steps]) for kind in KINDS}

    def table(self) -> list[dict[str, Any]]:
        """A row a kind: how many tokens, loss before training and at the last of the first steps."""
        first, last = self.found[min(self.found)], self.found[max(self.found)]
        return [
            {"kind of token": kind, "share of tokens (%)": first[kind].share,
             "loss before (nats)": first[kind].nats, f"loss after {max(self.found)} steps": last[kind].nats,
             "its part of the fall (%)": self.part_of_fall(kind)}
            for kind in KINDS
        ]  # fmt: skip

    def part_of_fall(self, kind: str) -> float:
        """How much of the fall of the mean loss over these steps is due to one kind of token, in %."""
        first, last = self.found[min(self.found)], self.found[max(self.found)]
        fall = sum(first[name].part - last[name].part for name in KINDS)
        return 100 * (first[kind].part - last[kind].part) / fall if fall else 0.0


def joined(rows: Sequence[Mapping[str, Any]], tail: int) -> dict[str, tuple[list[int], list[float]]]:
    """The last `tail` losses of base and all of mid on one axis; step 0 is where the data changes."""
    losses = {
        stage: [row["loss"] for row in rows if row.get("stage") == stage and "loss" in row]
        for stage in ("base", "mid")
    }
    before = losses["base"][-tail:]
    lines = {"base, its last steps": (list(range(-len(before), 0)), before)} if before else {}
    return {**lines, "mid": (list(range(len(losses["mid"]))), losses["mid"])}


# ---- domain shift


def with_base_text(talk: Iterator[Batch], text: Iterator[Batch], rows: int) -> Iterator[Batch]:
    """Batches of conversations whose first `rows` rows are replaced by rows of base text."""
    for (inputs, targets), (text_inputs, text_targets) in zip(talk, text, strict=False):
        yield (
            torch.cat((text_inputs[:rows], inputs[rows:])),
            torch.cat((text_targets[:rows], targets[rows:])),
        )


def short_mid(
    model: GPT, tokenizer: Tokenizer, profile: Profile, steps: int, *, text_rows: int = 0, rows: int = 4
) -> GPT:
    """A copy of a base model after `steps` of midtraining on `rows` rows each, `text_rows` of them base text.

    The model given stays as it is, and nothing is saved.
    """
    prepare_process()
    compute = choose_compute(profile.device, profile.dtype)
    student = copy.deepcopy(model).to(compute.device)
    task, context = conversations(profile, "mid"), profile.mid.max_seq_len
    talk: Iterator[Batch] = ConversationBatches(
        task, tokenizer, rows, context, supervise="all", seed=profile.seed, device=compute.device
    )
    if text_rows:
        text = base_batches(profile, tokenizer, rows=rows)
        moved = ((x[:, :context].to(compute.device), y[:, :context].to(compute.device)) for x, y in text)
        talk = with_base_text(talk, moved, text_rows)
    rates = learning_rates(profile)
    optimizers = build_optimizers(student, rates, fraction=profile.mid.init_lr_frac, ns_dtype=compute.dtype)
    schedule = Schedule(steps, warmdown_ratio=profile.mid.warmdown_ratio)
    for _ in fit(student, optimizers, talk, schedule, grad_clip=profile.grad_clip, compute=compute):
        pass
    return student.eval()


# ---- tool calls


def pieces(conversation: Conversation) -> list[dict[str, str]]:
    """A conversation as rows: who writes what, and what kind of part it is."""
    rows = []
    who = {"text": "the model", "python": "the model", "python_output": "the calculator"}
    for message in conversation["messages"]:
        content = message["content"]
        if message["role"] == "user":
            rows.append({"who writes it": "the user", "part": "text", "text": content})
            continue
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            rows.append({"who writes it": who[part["type"]], "part": part["type"], "text": part["text"]})
    return rows


def as_chips(conversation: Conversation, tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    """Tokens of a conversation as texts, and its mask: 1 where the assistant must write the token."""
    ids, mask = render_conversation(tokenizer, conversation)
    return [tokenizer.token_text(id) for id in ids], mask


def solve(model: GPT, tokenizer: Tokenizer, question: str, max_tokens: int = 96) -> Sample:
    """The likeliest answer to a question; its mask is 0 where the calculator wrote."""
    engine = Engine(model.eval(), tokenizer)
    prompt = render_for_completion(tokenizer, asked(question))
    return engine.generate_batch([prompt], max_tokens=max_tokens, temperature=0.0)[0][0]


def some_questions(count: int) -> list[str]:
    """Questions about common facts, in phrasings never trained on."""
    task = FactRecall(tier="common")
    return [task[index]["messages"][0]["content"] for index in range(min(count, len(task)))]
