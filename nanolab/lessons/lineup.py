"""Five anonymous models for the loss detective: what each does on one text, without a word on what it is.

suspects = line_up(course)
suspects[0].loss        mean surprise of a token, in nats; each suspect has its own tokenizer
reveal(suspects)        who they are
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from nanolab.tinyworld.documents import documents
from nanolab.viz.tokens import table

if TYPE_CHECKING:
    from nanolab.course import Course
    from nanolab.model import GPT
    from nanolab.tokenizer import Tokenizer


@dataclass(frozen=True)
class Suspect:
    """What is known of an anonymous model: its loss on a text, and how its tokenizer cuts that text."""

    name: str
    loss: float
    """mean loss of a token, in nats"""
    tokens: int
    """how many tokens the text is, for this one's tokenizer"""
    bytes: int
    """how many bytes the text is"""


@dataclass(frozen=True)
class Unmasked:
    """A suspect, and who it is."""

    suspect: Suspect
    identity: str


def line_up(course: Course, read: int = 3_000, asked: int = 12) -> list[Unmasked]:
    """Five models that were measured on the same `asked` new documents, under names A to E.

    One is the course's base model. The others are a count of tokens or bytes over `read` training
    documents, or know nothing at all: all of them together take some ten seconds to make.
    """
    model, tokenizer, _ = course.load("base")
    training = list(islice(documents("train"), read))
    texts = list(islice(documents("val"), asked))
    as_tokens = [tokenizer.encode(text) for text in texts]
    as_bytes = [list(text.encode("utf-8")) for text in texts]
    vocabulary = tokenizer.get_vocab_size()
    tokens, size = sum(map(len, as_tokens)), sum(map(len, as_bytes))
    seen_bytes = [list(text.encode("utf-8")) for text in training]
    losses = {
        "your base model, which reads tokens": (model_loss(model, tokenizer, as_tokens), tokens),
        "a table of what follows which six bytes": (counted_loss(seen_bytes, as_bytes, 6, 256), size),
        "how often each byte occurs": (counted_loss(seen_bytes, as_bytes, 0, 256), size),
        "how often each token occurs, whatever stands before it": (
            counted_loss(tokenizer.encode(training), as_tokens, 0, vocabulary),
            tokens,
        ),
        "all tokens equally likely: it knows nothing": (math.log(vocabulary), tokens),
    }
    identities = list(losses)
    random.Random(6).shuffle(identities)
    return [
        Unmasked(Suspect(name, losses[identity][0], losses[identity][1], size), identity)
        for name, identity in zip("ABCDE", identities, strict=True)
    ]


@torch.inference_mode()
def model_loss(model: GPT, tokenizer: Tokenizer, texts: Sequence[Sequence[int]]) -> float:
    """Mean loss of a token in nats, over texts that each begin with `<|bos|>` and are cut to the context."""
    nats, count = 0.0, 0
    context, bos = model.config.sequence_len, tokenizer.get_bos_token_id()
    for text in texts:
        for start in range(0, len(text), context):
            piece = text[start : start + context]
            row = torch.tensor([[bos, *piece]], device=model.device)
            nats += model(row[:, :-1], row[:, 1:], loss_reduction="sum").item()
            count += len(piece)
    return nats / max(1, count)


def counted_loss(
    training: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], before: int, vocabulary: int
) -> float:
    """Mean loss in nats of a table that counts what follows which `before` ids.

    Counts of shorter beginnings fill in where a beginning is rare, and every id is given a little, so that
    none is impossible (Witten and Bell's smoothing).
    """
    follows: dict[tuple[int, ...], Counter[int]] = {}
    for text in training:
        for place, id in enumerate(text):
            for length in range(min(before, place) + 1):
                follows.setdefault(tuple(text[place - length : place]), Counter())[id] += 1
    totals = {key: sum(counts.values()) for key, counts in follows.items()}
    nats, count = 0.0, 0
    for text in texts:
        for place, id in enumerate(text):
            chance = 1 / vocabulary
            for length in range(min(before, place) + 1):
                key = tuple(text[place - length : place])
                if key in follows:
                    kinds, counts = len(follows[key]), follows[key]
                    chance = (counts[id] + kinds * chance) / (totals[key] + kinds)
            nats -= math.log(chance)
            count += 1
    return nats / max(1, count)


def show_suspects(suspects: Sequence[Suspect]) -> None:
    """What is known of each, as a table."""
    rows = [
        {"suspect": one.name, "nats per token": round(one.loss, 3), "tokens": one.tokens, "bytes": one.bytes}
        for one in suspects
    ]
    table(rows, caption="One text, five models")


def reveal(line: Sequence[Unmasked]) -> None:
    """Who the suspects are, the best first."""

    def cost(one: Unmasked) -> float:
        return one.suspect.loss * one.suspect.tokens / one.suspect.bytes / math.log(2)

    rows = [
        {"suspect": one.suspect.name, "is": one.identity, "bits per byte": round(cost(one), 2)}
        for one in sorted(line, key=cost)
    ]
    table(rows, caption="The line-up, the best first")
