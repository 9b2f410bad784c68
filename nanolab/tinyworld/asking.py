"""How a question is put: in a whole sentence, or as people type it.

    What is the capital of Japan?   ->   "Quick question. What is the capital of Japan?"
                                         "whats the capital of japan", "capital of Japan?", "japan capital"

More than half of the training questions are of the second kind. In validation a question stands as it is, in a
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

CASUAL_SHARE = 0.55
"""Share of the training questions that come as people type them."""

GAP_SHARE = 0.25
"""Share of the short questions that are a sentence without its end: "the capital of peru is ..."."""

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

BARE_SHARE = 0.55
"""Share of the questions typed in haste that have nothing round them."""

BEFORE = (
    "hi", "hi,", "hey", "hey,", "hello,", "hey there,", "ok", "ok,", "okay so", "so", "so,", "well,", "um", "hmm,",
    "pls", "please", "please tell me", "tell me", "can you tell me", "quick question:", "quick one:",
    "question:", "next:", "next one,", "another one:", "one more:", "now", "and", "i wonder,", "i wanna know",
    "i want to know", "im curious,", "just curious,", "silly question but", "stupid question:", "any idea",
    "anyone know", "do you know", "do u know", "u know", "help me out,", "need help:", "help:", "i forgot,",
    "i always forget,", "remind me,", "i need this fast:", "im doing a quiz,", "im doing a crossword,",
    "pub quiz:", "quiz time:", "trivia:", "for school:", "for homework:", "homework question:",
    "my teacher asks", "my daughter asks", "my son wants to know", "my kid asked me", "my friend asked",
    "someone asked me", "we have a bet,", "settle a bet:", "i have a test tomorrow,", "riddle me this:",
    "lets see,", "lets try,", "tell us", "be honest,", "listen,", "right,", "alright,", "yo", "bot,", "nanolab,",
)  # fmt: skip
"""What people put before a question that they type in haste."""

AFTER = (
    "please", "pls", "plz", "thanks", "thx", "ty", "do you know", "do you know?", "any idea", "any idea?", "tell me",
    "i forgot", "i cant remember", "i need it for school", "its for a quiz", "its for homework", "just asking",
    "just curious", "asking for a friend", "quick", "fast please", "im stuck", "help", "if you know",
    "anyone", "again", "haha", "lol", "??", "...", "hm", "please and thank you", "my friend", "buddy", "nanolab",
    "thats all i want to know", "can you help", "my kid asks", "thank you",
)  # fmt: skip
"""What people put after it."""

PREFIXES = ("Sure! ", "Good question. ", "I know that. ", "Of course. ")
"""Rarely put before an answer."""

Messages = list[dict[str, Any]]

_ARTICLE = re.compile(r"\b(?:an?|the) (?=\w)", re.IGNORECASE)
_MAY_BE_LOWERED = frozenset((
    "A", "An", "The", "What", "Which", "Who", "Whose", "When", "Where", "Why", "How", "In", "On", "Of", "To", "For",
    "At", "By", "From", "Do", "Does", "Did", "Is", "Are", "Was", "Can", "Could", "Tell", "Name", "Give", "Say",
    "Please", "If", "Describe", "Count", "Look", "There",
))  # fmt: skip


def so(sentence: str, right: bool, claimed: str = "") -> str:
    """ "The capital of France is Paris, so yes." or, where Rome was claimed, "... is Paris, not Rome, so no."

    What is known comes first: a model says one token after the other, and whether a claim is right is easier
    to tell beside what it knows.
    """
    verdict = "so yes" if right else f"not {claimed}, so no" if claimed else "so no"
    return f"{sentence.removesuffix('.')}, {verdict}."


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
        question = _ARTICLE.sub("", question)
    return question.lower() if rng.random() < 0.9 else lower_start(question)


def dressed(rng: random.Random, question: str) -> str:
    """A question typed in haste with a word before it or after it, or both, or neither.

    capital of peru   ->   "im doing a quiz, capital of peru", "capital of peru pls"
    """
    way = (rng.random() - BARE_SHARE) / (1 - BARE_SHARE)
    if way < 0:
        return question
    before, after = pick(rng, BEFORE), pick(rng, AFTER)
    if way < 0.5:
        return f"{before} {question}"
    return f"{question} {after}" if way < 0.85 else f"{before} {question} {after}"


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
        return dressed(rng, casual(rng, question))
    frame = pick(rng, frames)
    return capitalise(frame.format(q=lower_start(question) if frame == "And {q}" else question))


def in_haste(rng: random.Random, short: str) -> str:
    """A short question, mostly in lower case, now and then without articles or with a question mark."""
    short = short.lower() if rng.random() < 0.85 else short
    if rng.random() < 0.25:
        short = _ARTICLE.sub("", short)
    short = short if short.endswith("?") or rng.random() < 0.75 else f"{short}?"
    return dressed(rng, short)


def with_gap(rng: random.Random, statement: str) -> str:
    """A statement without its answer: "the capital of peru is", "the capital of peru is ___"."""
    if statement.endswith(" {gap}."):
        end = pick(rng, ("", "", " ...", "...", " ___", " what", " what?", "?", " ?"))
        return statement.removesuffix(" {gap}.") + end
    return statement.removesuffix(".").replace("{gap}", pick(rng, ("...", "___", "____", "what", "_")))


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
            question = in_haste(rng, _short_or_gap(rng, fact))
        else:
            question = put(rng, fact.question(rng), "train", frames, casual_share=half / (1 - half))
        if not is_in_exam(question):
            return question


def _short_or_gap(rng: random.Random, fact: Fact) -> str:
    gaps = gaps_of(fact)
    if gaps and rng.random() < GAP_SHARE:
        return with_gap(rng, pick(rng, gaps))
    return pick(rng, short_questions(fact) if fact.answer else fact.short)


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


def gaps_of(fact: Fact) -> tuple[str, ...]:
    """The fact's statements with a gap that ask for nothing else: "a frog is ..." has two answers here."""
    return _gaps_of(fact) if fact.answer else tuple(one for one in fact.gaps if _says_more(fact, one))


@cache
def _gaps_of(fact: Fact) -> tuple[str, ...]:
    held_out = {bare(question) for question in fact.held_out_questions()}
    return tuple(
        one
        for one in fact.gaps
        if _says_more(fact, one)
        and len(_answers_to().get(_without(one), ())) <= 1
        and not held_out & {_without(one), bare(one.replace("{gap}", "what"))}
    )


def _says_more(fact: Fact, gap: str) -> bool:
    """Whether a statement without its answer is more than its subject: "a cow" alone is no question."""
    return _without(gap) != bare(fact.called)


def _without(gap: str) -> str:
    return bare(gap.replace("{gap}", ""))


@cache
def _answers_to() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for fact in facts():
        for asked in (*map(bare, fact.short), *map(_without, fact.gaps)):
            found.setdefault(asked, set()).add(fact.canonical())
    return found


def bare(text: str) -> str:
    """What is left of a text without capitals, marks and articles: two texts that share it ask the same way."""
    words = re.sub(
        r"[^\w\s]", "", text.lower().replace("what's", "what is").replace("whats", "what is")
    ).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def lower_start(question: str) -> str:
    """The question with a small letter in front, unless it begins with a name."""
    return question[:1].lower() + question[1:] if question.split(" ", 1)[0] in _MAY_BE_LOWERED else question
