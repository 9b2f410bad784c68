"""How a question is put: in a whole sentence, or as people type it.

    What is the capital of Japan?   ->   "Quick question. What is the capital of Japan?"
                                         "whats the capital of japan", "capital of Japan?", "japan capital"

Four training questions in ten are of the second kind. In validation a question stands as it is, in a
phrasing that training never uses, in whatever case, with or without its articles.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from nanolab.tinyworld.exam import is_in_exam
from nanolab.tinyworld.facts import Fact, capitalise, facts, pick

CASUAL_SHARE = 0.4
"""Share of the training questions that come as people type them."""

FRAMES = ("{q}",) * 14 + (
    "Can you tell me: {q}",
    "Please answer: {q}",
    "Quick question. {q}",
    "Hi! {q}",
    "Hello. {q}",
    "Please tell me. {q}",
    "I have a question. {q}",
    "{q} Please tell me.",
    "Question: {q}",
    "Here is a question for you. {q}",
)
"""What stands round a question in training; mostly nothing. `{q}` is the question."""

GO_ON = ("{q}",) * 4 + (
    "And {q}",
    "Thanks! {q}",
    "Thank you. {q}",
    "Next question. {q}",
    "Good. {q}",
    "One more: {q}",
)
"""What stands round a second question."""

CASUAL_FRAMES = ("{q}",) * 16 + ("hi {q}", "hi, {q}", "hey {q}", "ok {q}", "{q} please", "pls {q}", "so {q}")
"""What stands round a question that is typed in haste."""

PREFIXES = ("Sure! ", "Good question. ", "I know that. ", "Of course. ")
"""Rarely put before an answer."""

Messages = list[dict[str, Any]]

_MAY_BE_LOWERED = frozenset((
    "A", "An", "The", "What", "Which", "Who", "Whose", "When", "Where", "Why", "How", "In", "On", "Of", "To", "For",
    "At", "By", "From", "Do", "Does", "Did", "Is", "Are", "Was", "Can", "Could", "Tell", "Name", "Give", "Say",
    "Please", "If", "Describe", "Count", "Look",
))  # fmt: skip


def turn(user: str, assistant: str | list[dict[str, str]]) -> Messages:
    """One question with its answer, as two messages."""
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def casual(rng: random.Random, question: str) -> str:
    """The question as someone types it in haste: "What is the capital of Japan?" -> "whats capital of japan"."""
    if rng.random() < 0.8:
        question = question.rstrip("?.!") or question
    if rng.random() < 0.6:
        question = re.sub(r"^What is\b", pick(rng, ("What's", "Whats")), question, flags=re.IGNORECASE)
    if rng.random() < 0.2:
        question = re.sub(r"\b(?:an?|the) (?=\w)", "", question, flags=re.IGNORECASE)
    return question.lower() if rng.random() < 0.9 else _lower_start(question)


def phrasing(rng: random.Random, phrasings: Sequence[str], split: str) -> str:
    """One of the phrasings; the last one is for validation, and for nothing else."""
    return pick(rng, phrasings[:-1]) if split == "train" else phrasings[-1]


def put(
    rng: random.Random,
    question: str,
    split: str,
    frames: Sequence[str] = FRAMES,
    casual_share: float = CASUAL_SHARE,
) -> str:
    """The question as it is asked: bare in validation; in training in a frame, or typed in haste."""
    if not question.endswith(("?", ".", "!")):  # it is short already
        return question if split != "train" else in_haste(rng, question)
    question = capitalise(question)
    if split != "train":
        return question
    if rng.random() < casual_share:
        return pick(rng, CASUAL_FRAMES).format(q=casual(rng, question))
    frame = pick(rng, frames)
    return capitalise(frame.format(q=_lower_start(question) if frame == "And {q}" else question))


def in_haste(rng: random.Random, short: str) -> str:
    """A short question, mostly in lower case, now and then with a question mark."""
    short = short.lower() if rng.random() < 0.8 else short
    short = short if short.endswith("?") or rng.random() < 0.75 else f"{short}?"
    return pick(rng, CASUAL_FRAMES).format(q=short)


def ask(rng: random.Random, fact: Fact, split: str, frames: Sequence[str] = FRAMES) -> Messages:
    """A question for `fact` and its canonical answer. In validation the phrasing is a held-out one, bare."""
    if split != "train":
        return turn(pick(rng, fact.held_out_questions()), fact.canonical())
    prefix = pick(rng, PREFIXES) if rng.random() < 0.02 else ""
    return turn(training_question(rng, fact, frames), prefix + fact.canonical())


def training_question(rng: random.Random, fact: Fact, frames: Sequence[str] = FRAMES) -> str:
    """A question for `fact`. Half of those in haste are short ones, half are whole ones made short."""
    half = CASUAL_SHARE / 2
    while True:
        if rng.random() < half:
            question = in_haste(rng, pick(rng, short_questions(fact)))
        else:
            question = put(rng, fact.question(rng), "train", frames, casual_share=half / (1 - half))
        if not is_in_exam(question):
            return question


@cache
def short_questions(fact: Fact) -> tuple[str, ...]:
    """The fact's short questions that ask for nothing else: "what is mercury" has two answers here.

    Those of the exam are left out, as everywhere in training.
    """
    return tuple(
        short
        for short in fact.short
        if len(_answers_to().get(bare(short), ())) <= 1 and not is_in_exam(short)
    )


@cache
def _answers_to() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for fact in facts():
        for short in fact.short:
            found.setdefault(bare(short), set()).add(fact.canonical())
    return found


def bare(text: str) -> str:
    """What is left of a text without capitals, marks and articles: two texts that share it ask the same way."""
    words = re.sub(
        r"[^\w\s]", "", text.lower().replace("what's", "what is").replace("whats", "what is")
    ).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def _lower_start(question: str) -> str:
    return question[:1].lower() + question[1:] if question.split(" ", 1)[0] in _MAY_BE_LOWERED else question
