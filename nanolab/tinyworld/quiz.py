"""Multiple choice about TinyWorld's facts: the questions of TinyMMLU and TinyARC."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from nanolab.tinyworld.facts import TIER_WEIGHT, Fact, Weighted, facts, pick, sample
from nanolab.tinyworld.stories import load_prose

LETTERS = "ABCDE"

TOPICS = {
    "animals": "zoology",
    "colours": "art",
    "countries": "geography",
    "elements": "chemistry",
    "foods": "nutrition",
    "history": "history",
    "jobs": "economics",
    "months": "calendar",
    "opposites": "vocabulary",
    "planets": "astronomy",
    "plurals": "grammar",
    "things": "nature",
    "units": "measurement",
}
"""The subject of a quiz question by its fact's table."""

EVERYDAY = ("animals", "colours", "foods", "jobs", "months", "things", "units")
"""Tables whose facts a child meets: those of TinyARC."""

WHICH_SENTENCE = ("{q}", "{q}", "Which sentence answers this: {q}", "Find the sentence that fits. {q}")
WHICH_SENTENCE_HELD_OUT = ("Choose the sentence that explains it. {q}",)

EXPLANATION_SHARE = 0.25
"""Share of TinyARC that asks why or how, with sentences to choose from."""


@dataclass(frozen=True)
class Quiz:
    """A question, its choices, the letter of the right one, and what it is about."""

    question: str
    choices: tuple[str, ...]
    letter: str
    topic: str

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.choices)]


def mmlu(rng: random.Random, split: str = "train") -> Quiz:
    """Any fact, with four choices."""
    return _about_fact(rng, split, _pool(tuple(TOPICS), 3).draw(rng), 4)


def arc(rng: random.Random, split: str = "train") -> Quiz:
    """An everyday fact, or a question why or how, with three to five choices."""
    count = pick(rng, (3, 4, 4, 4, 5))
    if rng.random() < EXPLANATION_SHARE:
        return _about_explanation(rng, split, count)
    return _about_fact(rng, split, _pool(EVERYDAY, 2).draw(rng), count)


@cache
def _pool(tables: tuple[str, ...], wrong: int) -> Weighted[Fact]:
    """The facts of `tables` that have at least `wrong` wrong answers to offer."""
    rng = random.Random("pool")
    return Weighted(
        [
            (fact, TIER_WEIGHT[fact.tier])
            for fact in facts()
            if fact.table in tables and len(fact.distractors(rng, wrong)) == wrong
        ]
    )


def _about_fact(rng: random.Random, split: str, fact: Fact, count: int) -> Quiz:
    question = fact.question(rng) if split == "train" else pick(rng, fact.held_out_questions())
    return _shuffle(rng, question, fact.answer, fact.distractors(rng, count - 1), TOPICS[fact.table])


def _about_explanation(rng: random.Random, split: str, count: int) -> Quiz:
    right, *wrong = sample(rng, load_prose("explanations"), count)
    frame = pick(rng, WHICH_SENTENCE if split == "train" else WHICH_SENTENCE_HELD_OUT)
    question = frame.format(q=right["question"])
    return _shuffle(
        rng, question, right["sentences"][0], [one["sentences"][0] for one in wrong], "how things work"
    )


def _shuffle(rng: random.Random, question: str, answer: str, wrong: list[str], topic: str) -> Quiz:
    """The answer at a place drawn uniformly among the wrong ones."""
    place = int(rng.random() * (len(wrong) + 1))
    choices = (*wrong[:place], answer, *wrong[place:])
    return Quiz(question, choices, LETTERS[place], topic)
