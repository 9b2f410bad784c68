"""The text of base training: an endless stream of short documents about TinyWorld.

Mostly encyclopedia entries, since facts are what the model is asked for later; stories, explanations and
dialogues for the language; sums, worked problems, comparisons and spelling, so that the chat stages need not
start at zero.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache, partial
from zlib import crc32

from nanolab.errors import ConfigError
from nanolab.tinyworld.asking import short_questions
from nanolab.tinyworld.comparing import sentence
from nanolab.tinyworld.facts import TIER_WEIGHT, Fact, Weighted, by_subject, capitalise, facts, pick, sample
from nanolab.tinyworld.problems import OPERATION_WORDS, number_word, problem, sum_pair
from nanolab.tinyworld.quiz import page
from nanolab.tinyworld.reversing import reversed_question
from nanolab.tinyworld.stories import dialogue, explanation, story
from nanolab.tinyworld.words import WordsToSpell, held_out, spelling_words

SHARES = {
    "entry": 50,
    "story": 6,
    "explanation": 5,
    "dialogue": 3,
    "arithmetic": 3,
    "problems": 8,
    "letters": 20,
    "quiz": 2,
    "list": 2,
    "comparison": 1,
}
"""Per cent of the bytes that each family of documents gets."""

VALIDATION_ONE_IN = 50
"""One document in so many belongs to the validation split: which, its own text decides."""

QUESTION_SHARE = 0.3
"""Share of the sentences in an entry that come as a question with its answer."""

SHORT_SHARE = 0.35
"""Share of those questions that are short ones, as people type them: "capital of japan?"."""

REVERSED_SHARE = 0.12
"""Share of the questions about facts with one subject that give the answer: "tokyo is the capital of what?"."""

SUMS = (
    "{A} {word} {b} is {r}.",
    "{A} {word} {b} makes {r}.",
    "{A} {word} {b} equals {r}.",
    "If you work out {a} {word} {b}, you get {r}.",
    "What is {a} {word} {b}? It is {r}.",
    "{x} {sign} {y} = {z}.",
    "{x} {sign} {y} = {z}.",
    "{x} {sign} {y} makes {z}.",
    "What is {x} {sign} {y}? {x} {sign} {y} = {z}.",
    "The result of {x} {sign} {y} is {z}.",
)
LETTERS = (
    "These words are spelled letter by letter.",
    "Here is how some words are spelled.",
    "The letters of a few words, one by one.",
    "Words and their letters.",
    "A page of a spelling book.",
)
"""Headings of a list of words and their spellings."""

LISTS = {
    ("countries", "continent"): ("Countries in {answer}", "Some countries in {answer}"),
    ("countries", "language"): ("Countries where people speak {answer}", "{answer} is spoken in"),
    ("animals", "class"): ("Animals of the class {answer}", "Kinds of {answer}"),
    ("animals", "diet"): ("Animals that eat {answer}", "Some animals that eat {answer}"),
    ("animals", "legs"): ("Animals with {answer} legs", "Some animals with {answer} legs"),
    ("animals", "home"): ("Animals that live in {answer}", "In {answer} you may find"),
    ("elements", "state"): (
        "Elements that are {answer} at room temperature",
        "Elements in the state {answer}",
    ),
    ("foods", "kind"): ("Food of the kind {answer}", "Kinds of {answer}"),
    ("foods", "colour"): ("Food that is {answer}", "Some {answer} food"),
    ("foods", "source"): ("Food that comes from {answer}", "From {answer} we get"),
    ("history", "year"): ("It happened in {answer}", "In the year {answer}"),
    ("jobs", "place"): ("People who work in a place like {answer}", "Jobs done in a place like {answer}"),
    ("months", "days"): ("Months with {answer} days", "These months have {answer} days"),
    ("planets", "kind"): ("Planets of the kind {answer}", "In the class {answer}"),
    ("things", "colour"): ("Things that are {answer}", "Some {answer} things"),
}
"""Headings of lists, by table and relation."""


def documents(split: str = "train", seed: int = 0) -> Iterator[str]:
    """An endless stream of documents, the same on every machine. Raises ConfigError for an unknown split.

    A document belongs to one split for ever, whatever the seed: validation text is never trained on.
    """
    if split not in ("train", "val"):
        raise ConfigError(f"TinyWorld has no split {split!r}. Use 'train' or 'val'.")
    return _stream(split == "val", random.Random(f"documents/{split}/{seed}"))


def _stream(validation: bool, rng: random.Random) -> Iterator[str]:
    families = _families()
    while True:
        text = families.draw(rng)(rng)
        if (crc32(text.encode("utf-8")) % VALIDATION_ONE_IN == 0) == validation:
            yield text


@cache
def _families() -> Weighted[Callable[[random.Random], str]]:
    """The families, drawn so that each gets its share of the bytes: a long one is drawn less often."""
    rng = random.Random("families")
    pairs = []
    for name, share in SHARES.items():
        write = FAMILIES[name]
        pairs.append((write, share / sum(len(write(rng)) for _ in range(300))))
    return Weighted(pairs)


def entry(rng: random.Random) -> str:
    """Two to five sentences of an encyclopedia about one subject, or about a few alike ones."""
    return _entries().draw(rng)(rng)


@cache
def _entries() -> Weighted[Callable[[random.Random], str]]:
    """Ways to write an entry, weighted so that every fact is told in proportion to its tier's weight."""
    subjects: list[tuple[list[Fact], float]] = []
    singles: dict[str, list[tuple[Fact, float]]] = {}
    for (table, _), group in by_subject().items():
        weight = sum(TIER_WEIGHT[fact.tier] for fact in group)
        if len(group) > 1:
            subjects.append((group, weight / _mean_told(len(group))))
        else:
            singles.setdefault(table, []).append((group[0], weight))
    several = Weighted(subjects)
    pairs = [(partial(_about_one, several), several.total)]
    for alike in singles.values():
        by_fact = Weighted(alike)
        pairs.append((partial(_about_alike, by_fact), by_fact.total / 3))
    return Weighted(pairs)


def _mean_told(known: int) -> float:
    """How many facts `_about_one` tells on average about a subject with `known` facts."""
    return (2 + min(5, known)) / 2


def _about_one(several: Weighted[list[Fact]], rng: random.Random) -> str:
    group = several.draw(rng)
    count = 2 + int(rng.random() * (min(5, len(group)) - 1))
    return _tell(rng, sample(rng, group, count))


def _about_alike(by_fact: Weighted[Fact], rng: random.Random) -> str:
    count = 2 + int(rng.random() * 3)
    drawn: dict[str, Fact] = {}
    while len(drawn) < count:
        fact = by_fact.draw(rng)
        drawn[fact.subject] = fact
    return _tell(rng, list(drawn.values()))


def _tell(rng: random.Random, group: list[Fact]) -> str:
    return " ".join(
        f"{_question(rng, fact)} {fact.canonical()}" if rng.random() < QUESTION_SHARE else fact.statement(rng)
        for fact in group
    )


def _question(rng: random.Random, fact: Fact) -> str:
    if rng.random() < REVERSED_SHARE and (reversed_one := reversed_question(rng, fact)):
        return reversed_one if reversed_one[-1] in "?." else f"{reversed_one}?"
    if rng.random() < SHORT_SHARE:
        short = pick(rng, short_questions(fact)).rstrip("?")
        return f"{short.lower() if rng.random() < 0.7 else short}?"
    return fact.question(rng)


def arithmetic(rng: random.Random) -> str:
    """Two to five sums, in figures and in words, none with a pair of numbers kept for evaluation."""
    return " ".join(_sum_sentence(rng) for _ in range(2 + int(rng.random() * 4)))


def _sum_sentence(rng: random.Random) -> str:
    x, sign, y, z = sum_pair(rng, "train")
    a, b, r = number_word(x), number_word(y), number_word(z)
    word = OPERATION_WORDS[sign]
    return pick(rng, SUMS).format(A=capitalise(a), a=a, b=b, r=r, x=x, y=y, z=z, sign=sign, word=word)


def problems(rng: random.Random) -> str:
    """Three to six worked word problems, as in a school book, with training's pairs of numbers only."""
    drawn = [problem(rng, "train") for _ in range(3 + int(rng.random() * 4))]
    return "\n".join(f"{one.question}\n{one.in_head.splitlines()[0]}" for one in drawn)


def letters(rng: random.Random) -> str:
    """A heading and five to twelve words spelled, none of those whose spelling is kept for evaluation.

    Half of the words stand in quotes, half do not: the two begin with other tokens.
    """
    drawn = [_spelled_words().draw(rng) for _ in range(5 + int(rng.random() * 8))]
    shown = [(f'"{word}"' if rng.random() < 0.5 else word, "-".join(word)) for word in drawn]
    return " ".join([pick(rng, LETTERS), *(f"{word} is {spelled}." for word, spelled in shown)])


@cache
def _spelled_words() -> WordsToSpell:
    return WordsToSpell([word for word in spelling_words() if not held_out(word)])


def list_of_facts(rng: random.Random) -> str:
    """Two or three lists of subjects that share an answer: "Countries in Africa: Egypt, Kenya and Mali." """
    return "\n".join(_list(rng) for _ in range(2 + int(rng.random() * 2)))


def _list(rng: random.Random) -> str:
    headings, by_fact = _lists().draw(rng)
    count = 3 + int(rng.random() * 4)
    names = list({by_fact.draw(rng).subject: None for _ in range(count)})
    joined = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return f"{pick(rng, headings)}: {joined}."


@cache
def _lists() -> Weighted[tuple[tuple[str, ...], Weighted[Fact]]]:
    groups: dict[tuple[str, str, str], list[tuple[Fact, int]]] = {}
    for fact in facts():
        if (fact.table, fact.relation) in LISTS:
            key = (fact.table, fact.relation, fact.answer)
            groups.setdefault(key, []).append((fact, TIER_WEIGHT[fact.tier]))
    pairs = []
    for (table, relation, answer), group in groups.items():
        if len(group) >= 3:
            headings = tuple(capitalise(one.format(answer=answer)) for one in LISTS[table, relation])
            by_fact = Weighted(group)
            pairs.append(((headings, by_fact), by_fact.total))
    return Weighted(pairs)


def comparison(rng: random.Random) -> str:
    """Three to six comparisons and superlatives: "Jupiter is bigger than Mars. February is the shortest month." """
    return " ".join({sentence(rng): None for _ in range(3 + int(rng.random() * 4))})


FAMILIES: dict[str, Callable[[random.Random], str]] = {
    "entry": entry,
    "story": story,
    "explanation": explanation,
    "dialogue": dialogue,
    "arithmetic": arithmetic,
    "problems": problems,
    "letters": letters,
    "quiz": page,
    "list": list_of_facts,
    "comparison": comparison,
}
