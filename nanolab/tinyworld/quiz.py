"""Multiple choice about TinyWorld's facts: the questions of TinyMMLU and TinyARC."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from nanolab.tinyworld.exam import is_in_exam
from nanolab.tinyworld.facts import TIER_WEIGHT, Fact, Weighted, facts, fill, pick, sample
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

REVERSED_SHARE = 0.3
"""Share of the questions about facts that give the answer and ask for the subject."""


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
    return _about_fact(rng, split, tuple(TOPICS), 3, 4)


def arc(rng: random.Random, split: str = "train") -> Quiz:
    """An everyday fact, or a question why or how, with three to five choices."""
    count = pick(rng, (3, 4, 4, 4, 5))
    if rng.random() < EXPLANATION_SHARE:
        return _about_explanation(rng, split, count)
    return _about_fact(rng, split, EVERYDAY, 2, count)


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


def _about_fact(rng: random.Random, split: str, tables: tuple[str, ...], wrong: int, count: int) -> Quiz:
    if rng.random() < REVERSED_SHARE:
        fact = _reversible(tables).draw(rng)
        question = pick(rng, reversed_questions(fact, split))
        return _shuffle(
            rng, question, fact.subject, _other_subjects(rng, fact, count - 1), TOPICS[fact.table]
        )
    fact = _pool(tables, wrong).draw(rng)
    question = fact.question(rng) if split == "train" else pick(rng, fact.held_out_questions())
    return _shuffle(rng, question, fact.answer, fact.distractors(rng, count - 1), TOPICS[fact.table])


def reversed_questions(fact: Fact, split: str) -> list[str]:
    """Questions that name the fact's answer and ask for its subject; none where its relation has no such.

    Those of the exam are left out of training.
    """
    relation = load_prose("reversed").get(fact.table, {}).get(fact.relation, {})
    asked = [fill(one, fact.row) for one in relation.get("questions" if split == "train" else "held_out", ())]
    return [one for one in asked if split != "train" or not is_in_exam(one)]


@cache
def _reversible(tables: tuple[str, ...]) -> Weighted[Fact]:
    """The facts of `tables` that are the only answer to each of their reversed questions.

    "What has 3 sides?" has one answer, "What has 100 cents?" has two. A capital such as Mexico City gives
    its country away.
    """
    asked = {
        fact: [q for split in ("train", "val") for q in reversed_questions(fact, split)] for fact in facts()
    }
    times = Counter(question for questions in asked.values() for question in questions)
    return Weighted(
        [
            (fact, TIER_WEIGHT[fact.tier])
            for fact, questions in asked.items()
            if fact.table in tables
            and questions
            and all(times[one] == 1 and fact.subject.lower() not in one.lower() for one in questions)
        ]
    )


@cache
def _alike() -> Mapping[tuple[str, str], list[Fact]]:
    """The facts of each relation."""
    groups: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts():
        groups.setdefault((fact.table, fact.relation), []).append(fact)
    return groups


def _other_subjects(rng: random.Random, fact: Fact, n: int) -> list[str]:
    """`n` other subjects of the fact's relation, those of its own tier first; none says the answer itself."""
    others = [
        other
        for other in _alike()[fact.table, fact.relation]
        if other.subject != fact.subject and fact.answer.lower() not in other.subject.lower().split()
    ]
    mixed = sample(rng, others, len(others))
    return [other.subject for other in sorted(mixed, key=lambda other: other.tier != fact.tier)[:n]]


@dataclass(frozen=True)
class Sheet:
    """One list of choices, and several questions that it answers."""

    choices: tuple[str, ...]
    asked: tuple[tuple[str, str], ...]
    """(question, letter)"""
    topic: str

    @property
    def lines(self) -> str:
        """The choices as a multiple-choice question has them."""
        return "".join(
            f"- {choice}={letter}\n" for choice, letter in zip(self.choices, LETTERS, strict=False)
        )


def sheet(rng: random.Random, count: int = 4, questions: int = 4) -> Sheet:
    """A list of answers to choose from, with up to `questions` questions about facts, for training.

    Asked for in turn, each once, letters can be told by which are left over; drawn anew for each question,
    they have to be looked up. (`laptop` does not learn it in its time all the same: docs/experiments.md.)
    """
    first = _pool(tuple(TOPICS), count - 1).draw(rng)
    choices = [first.answer, *first.distractors(rng, count - 1)]
    choices = sample(rng, choices, len(choices))
    asked = [(first.question(rng), LETTERS[choices.index(first.answer)])]
    for _ in range(questions):
        choice = pick(rng, choices)
        fact = _answered_by()[first.table, first.relation, choice].draw(rng)
        if not (set(choices) - {choice}) & _other_answers(fact):
            asked.append((fact.question(rng), LETTERS[choices.index(choice)]))
    return Sheet(tuple(choices), tuple(sample(rng, asked, questions)), TOPICS[first.table])


def page(rng: random.Random) -> str:
    """A sheet of base text: choices, some of them once more in another order, then questions.

    Every letter stands behind "=", as in a multiple-choice question, so that it is the same token there.
    """
    made = sheet(rng, pick(rng, (3, 4, 4, 5)))
    again = sample(rng, made.lines.splitlines(), pick(rng, (1, 2, 3)))
    asked = [f"{question}={letter}" for question, letter in made.asked]
    return made.lines + "\n".join([*again, *asked])


@cache
def _answered_by() -> Mapping[tuple[str, str, str], Weighted[Fact]]:
    """The facts by table, relation and answer."""
    groups: dict[tuple[str, str, str], list[tuple[Fact, int]]] = {}
    for fact in facts():
        groups.setdefault((fact.table, fact.relation, fact.answer), []).append((fact, TIER_WEIGHT[fact.tier]))
    return {key: Weighted(group) for key, group in groups.items()}


def _other_answers(fact: Fact) -> set[str]:
    """What else is right for the fact's subject: a country may have two capitals."""
    alike = _alike()[fact.table, fact.relation]
    return {one.answer for one in alike if one.subject == fact.subject} - {fact.answer}


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
