"""TinyTalk: small talk, questions about facts, short explanations and sums, as conversations.

In each list of user phrasings the last one is kept for validation, and a fact is asked there in its
held-out phrasings: nothing that a model is tested on was word for word in its training, in whatever case,
with or without its articles and its marks.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from nanolab.tinyworld.asking import CASUAL_SHARE, GO_ON, Messages, ask, casual, in_haste, phrasing, put, turn
from nanolab.tinyworld.comparing import comparison
from nanolab.tinyworld.deciding import this_or_that, yes_or_no
from nanolab.tinyworld.exam import is_in_exam
from nanolab.tinyworld.facts import (
    TIER_WEIGHT,
    Fact,
    Weighted,
    by_subject,
    capitalise,
    pick,
    sample,
    sample_fact,
)
from nanolab.tinyworld.following import follow_up
from nanolab.tinyworld.listing import listing
from nanolab.tinyworld.outside import outside
from nanolab.tinyworld.problems import number_word, sum_pair
from nanolab.tinyworld.reversing import reverse
from nanolab.tinyworld.rhymes import rhyme
from nanolab.tinyworld.stories import load_prose

CASUAL_TALK = 0.3
"""Share of the small talk that loses its capitals and its marks."""

Intent = dict[str, list[str]]
"""What a user may `say`, the last one held out, and what may be the `reply`."""

ABOUT = (
    "Tell me about {s}.",
    "Tell me something about {s}.",
    "What do you know about {s}?",
    "What can you tell me about {s}?",
    "Do you know {s}?",
    "about {s}",
    "info about {s}",
    "explain {s}",
    "{s}",
    "{s}?",
    "Could you tell me a bit about {s}?",
)
"""Questions for all that is known about `{s}`; the last one is held out."""

EXPLAIN = ("{q}",) * 6 + (
    "{q} Please explain.",
    "Can you explain this? {q}",
    "Tell me: {q}",
    "Please explain: {q}",
)

SUMS = (
    "What is {x} {sign} {y}?", "{x} {sign} {y} = ?", "How much is {x} {sign} {y}?", "Work out {x} {sign} {y}.",
    "{x} {sign} {y}", "{x} {sign} {y}", "{x}{sign}{y}", "{x}{sign}{y}", "{x}{sign}{y}=", "{x}{sign}{y}=?", "{x} {sign} {y} =",
    "{x}{sign}{y}?", "{x} {sign} {y}?", "what is {x}{sign}{y}", "whats {x}{sign}{y}", "whats {x} {sign} {y}",
    "what's {x}{sign}{y}?", "what's {x} {sign} {y}", "calculate {x} {sign} {y}", "calc {x}{sign}{y}",
    "how much is {x}{sign}{y}", "solve {x} {sign} {y}", "compute {x}{sign}{y}", "do {x} {sign} {y}", "{x} {sign} {y} equals",
    "{x} {sign} {y} is", "{x} {sign} {y} makes", "can you do {x}{sign}{y}", "answer of {x} {sign} {y}",
    "{x} {sign} {y} is what", "result of {x} {sign} {y}", "i need {x} {sign} {y}", "{x} {sign} {y} please",
)  # fmt: skip
"""Sums with a sign, in figures."""

SAID_SUMS = (
    "What is {x} {word} {y}?", "How much is {x} {word} {y}?", "Work out {x} {word} {y}.", "{x} {word} {y}",
    "{x} {word} {y}?", "what is {x} {word} {y}", "whats {x} {word} {y}", "what's {x} {word} {y}?",
    "Can you tell me what {x} {word} {y} is?", "how much is {x} {word} {y}", "calculate {x} {word} {y}",
    "{x} {word} {y} is what", "{x} {word} {y} equals", "{x} {word} {y} is", "{x} {word} {y} makes what",
    "do you know {x} {word} {y}", "work out {x} {word} {y} for me", "tell me {x} {word} {y}", "{x} {word} {y} =",
    "what do you get for {x} {word} {y}", "answer to {x} {word} {y}", "what does {x} {word} {y} make",
)  # fmt: skip
"""Sums with a word for the sign, in figures or in words."""

TOLD_SUMS = {
    "+": (
        "add {x} and {y}", "Add {x} and {y}.", "add {x} to {y}", "{x} and {y} makes", "{x} and {y} make what",
        "{x} and {y} is", "sum of {x} and {y}", "What is the sum of {x} and {y}?", "{x} and {y} together",
        "how much are {x} and {y} together", "{x} add {y}", "total of {x} and {y}", "put {x} and {y} together",
        "{x} more than {y}", "increase {x} by {y}", "{x} with {y} added", "what do {x} and {y} add up to",
    ),
    "-": (
        "take {y} away from {x}", "Take {y} from {x}.", "{x} take away {y}", "{x} less {y}", "subtract {y} from {x}",
        "Subtract {y} from {x}.", "difference of {x} and {y}", "difference between {x} and {y}", "{y} less than {x}",
        "what is left if i take {y} from {x}", "{x} without {y}", "{x} reduced by {y}", "how much is {x} less {y}",
        "how much more is {x} than {y}", "from {x} take {y}", "remove {y} from {x}", "{y} from {x}",
    ),
    "*": (
        "multiply {x} by {y}", "Multiply {x} and {y}.", "multiply {x} and {y}", "product of {x} and {y}",
        "What is the product of {x} and {y}?", "{x} multiplied by {y}", "{x} multiplied with {y}",
        "{x} lots of {y}", "{x} groups of {y}", "{x} rows of {y}", "how much are {x} {y}s", "{x} by {y}",
        "whats {x} multiplied by {y}", "{x} sets of {y}",
    ),
    "/": (
        "divide {x} by {y}", "Divide {x} by {y}.", "share {x} by {y}", "share {x} among {y}", "split {x} by {y}",
        "how many {y}s in {x}", "how many {y}s are in {x}", "how many times does {y} go into {x}", "{x} over {y}",
        "how often does {y} fit into {x}", "{x} shared by {y}", "{x} split by {y}", "{y} into {x}", "{x} shared between {y}",
        "quotient of {x} and {y}", "Split {x} into {y} parts.", "{x} divided in {y} parts",
    ),
}  # fmt: skip
"""Sums told by what is done with the numbers."""

BY_TWO = {
    "*": ("double {x}", "twice {x}", "what is double {x}", "whats twice {x}", "Double {x}.", "the double of {x}",
          "{x} doubled", "how much is twice {x}", "two times {x}", "double of {x} please"),
    "/": ("half of {x}", "what is half of {x}", "halve {x}", "whats half of {x}", "What is half of {x}?", "{x} halved",
          "one half of {x}", "how much is half of {x}", "cut {x} in half", "half of {x} please"),
}  # fmt: skip
"""Sums whose second number is two."""

TIMES_SIGNS = ("*", "x", "x")
"""How people write a product. The answer always has "*", as everywhere in TinyWorld."""


@cache
def intents(kind: str) -> tuple[Intent, ...]:
    """The intents of "identity" or of "small_talk"."""
    return tuple(load_prose("small_talk")[kind])


def _say(rng: random.Random, intent: Intent, split: str) -> Messages:
    said = phrasing(rng, intent["say"], split)
    if split == "train" and rng.random() < CASUAL_TALK:
        said = casual(rng, said)
    return turn(said, pick(rng, intent["reply"]))


def identity(rng: random.Random, split: str) -> Messages:
    """Who the model is: one question, now and then after a greeting."""
    greeting = _say(rng, intents("small_talk")[0], split) if rng.random() < 0.15 else []
    return greeting + _say(rng, pick(rng, intents("identity")), split)


def small_talk(rng: random.Random, split: str) -> Messages:
    """One to three turns about nothing much."""
    chosen = [_about_small_talk().draw(rng) for _ in range(pick(rng, (1, 1, 1, 2, 2, 3)))]
    return [message for intent in chosen for message in _say(rng, intent, split)]


@cache
def _about_small_talk() -> Weighted[Intent]:
    """The intents by their number of phrasings: hello is said more often than that it rains."""
    return Weighted([(intent, len(intent["say"])) for intent in intents("small_talk")])


def one_fact(rng: random.Random, split: str) -> Messages:
    """One question about a fact."""
    return ask(rng, sample_fact(rng), split)


def about(rng: random.Random, split: str) -> Messages:
    """A question for all that is known about a subject, answered by its first two facts."""
    subject, told = _subjects().draw(rng)
    question = phrasing(rng, ABOUT, split).format(s=subject)
    return turn(put(rng, question, split, frames=("{q}",)), told)


@cache
def _subjects() -> Weighted[tuple[str, str]]:
    """Subjects with two facts and more whose name means nothing else: "turkey" may be a bird or a country."""
    groups = [group for group in by_subject().values() if len({fact.relation for fact in group}) > 1]
    names = Counter(_name(group[0]) for group in by_subject().values())
    return Weighted(
        [
            ((group[0].called, f"{group[0].canonical()} {group[1].canonical()}"), TIER_WEIGHT[group[0].tier])
            for group in groups
            if names[_name(group[0])] == 1
        ]
    )


def _name(fact: Fact) -> str:
    return re.sub("^(?:an?|the) ", "", fact.subject.lower())


def greeting_and_fact(rng: random.Random, split: str) -> Messages:
    """A question about a fact after, or before, a little small talk."""
    messages = ask(rng, sample_fact(rng), split)
    if rng.random() < 0.3:
        return messages + _say(rng, _saying("Thank you!")[0], split)
    return _say(rng, pick(rng, _saying(*OPENERS)), split) + messages


OPENERS = (
    "Hello!",
    "Good morning!",
    "Good evening!",
    "How are you?",
    "Can you help me?",
    "I have a question.",
)
"""A phrasing of each intent that a conversation may begin with."""


@cache
def _saying(*phrasings: str) -> tuple[Intent, ...]:
    return tuple(intent for intent in intents("small_talk") if set(phrasings) & set(intent["say"]))


def same_subject(rng: random.Random, split: str) -> Messages:
    """Two or three questions about one subject."""
    first = sample_fact(rng)
    others = [fact for fact in by_subject()[first.table, first.subject] if fact != first]
    messages = ask(rng, first, split)
    for fact in sample(rng, others or [sample_fact(rng)], pick(rng, (1, 1, 2))):
        messages += ask(rng, fact, split, GO_ON)
    return messages


def two_facts(rng: random.Random, split: str) -> Messages:
    """Two questions that have nothing to do with each other."""
    return ask(rng, sample_fact(rng), split) + ask(rng, sample_fact(rng), split, GO_ON)


def explain(rng: random.Random, split: str) -> Messages:
    """A question how or why, answered by as many first sentences of the explanation as it takes."""
    item = pick(rng, load_prose("explanations"))
    question = phrasing(rng, [item["question"], *item["ways"]], split)
    return turn(put(rng, question, split, EXPLAIN), " ".join(item["sentences"][: item["answer"]]))


def sums(rng: random.Random, split: str) -> Messages:
    """A sum, in words or in figures, with pairs of numbers by split. The calculator works it out."""
    x, sign, y, z = sum_pair(rng, split)
    way = rng.random()
    if y == 2 and sign in BY_TWO and way < 0.6:
        ways: Sequence[str] = BY_TWO[sign]
    else:
        ways = pick(rng, (SUMS, SUMS, SAID_SUMS, TOLD_SUMS[sign], TOLD_SUMS[sign]))
    in_words = ways is not SUMS and rng.random() < 0.3
    a, b = (number_word(x), number_word(y)) if in_words else (str(x), str(y))
    said = pick(rng, TIMES_SIGNS) if sign == "*" else sign
    question = pick(rng, ways).format(x=a, y=b, sign=said, word=pick(rng, SAID_SIGNS[sign]))
    if split == "train" and rng.random() < CASUAL_SHARE / 2:
        question = in_haste(rng, question)
    elif in_words and question[-1] in "?.":
        question = capitalise(question)
    return turn(question, worked_out(x, sign, y, z))


SAID_SIGNS = {
    "+": ("plus", "plus", "and", "added to"),
    "-": ("minus", "minus", "take away"),
    "*": ("times", "times", "multiplied by"),
    "/": ("divided by", "divided by", "over"),
}
"""Words for the signs."""


def worked_out(x: int, sign: str, y: int, z: int) -> list[dict[str, str]]:
    """ "3 + 4 = 7." with a call of the calculator before the result, as the parts of a message."""
    return [
        {"type": "text", "text": f"{x} {sign} {y} = "},
        {"type": "python", "text": f"{x}{sign}{y}"},
        {"type": "python_output", "text": str(z)},
        {"type": "text", "text": f"{z}."},
    ]


KINDS = Weighted(
    [
        (one_fact, 29),
        (reverse, 6),
        (about, 1.5),
        (greeting_and_fact, 3),
        (same_subject, 3.5),
        (two_facts, 2.5),
        (follow_up, 5),
        (yes_or_no, 7),
        (this_or_that, 4),
        (comparison, 4),
        (listing, 5),
        (small_talk, 5.5),
        (identity, 2.5),
        (explain, 5.5),
        (sums, 5),
        (rhyme, 1),
        (outside, 10),
    ]
)
"""Kinds of TinyTalk conversations, per cent."""


def talk(rng: random.Random, split: str = "train") -> Messages:
    """The messages of one conversation of TinyTalk; one that asks what the exam asks is drawn anew."""
    while True:
        messages = KINDS.draw(rng)(rng, split)
        asked = [message["content"] for message in messages if message["role"] == "user"]
        if not any(map(is_in_exam, asked)) and not any(is_in_exam(*two) for two in pairwise(asked)):
            return messages
