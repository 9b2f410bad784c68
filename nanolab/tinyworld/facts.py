"""What TinyWorld knows: rows of `tables/*.csv`, put into words by the templates of `relations/*.json`.

    countries.csv     name,capital,...,tier      France,Paris,...,common
    countries.json    "statements": ["The capital of {name} is {capital}.", ...]
    the fact          France --capital--> Paris, "The capital of France is Paris."

A fact's tier says how often it is told: a common fact ten times as often as an uncommon one, and that ten
times as often as a rare one. All chance comes from `Random.random()`, whose sequence Python keeps the same
from version to version; that of `choice()` and `shuffle()` it does not promise.
"""

from __future__ import annotations

import csv
import json
import random
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from itertools import accumulate
from types import MappingProxyType
from typing import Any, TypeVar

from nanolab.errors import DataError
from nanolab.tinyworld.exam import is_in_exam

TIER_WEIGHT = {"common": 100, "uncommon": 10, "rare": 1}
"""How often a fact of each tier is drawn, against a rare one."""

_SOUNDS_LIKE_YOU = ("uni", "use", "usu", "eu", "one", "ufo", "ute")
_SILENT_H = ("hour", "honest", "honour", "heir")

T = TypeVar("T")


@dataclass(frozen=True)
class Relation:
    """How one column of a table is told and asked about."""

    table: str
    name: str
    subject: str
    """the column that holds what the fact is about"""
    answer: str
    """the column that holds the answer"""
    statements: tuple[str, ...]
    """templates; the first is the canonical one, which the chat model answers with"""
    questions: tuple[str, ...]
    """templates used in training"""
    held_out: tuple[str, ...]
    """templates used in evaluation only"""
    closed: bool
    """the answers form a small closed set, so that naming several of them is no answer"""
    called: str
    """how the subject stands in a sentence: "{name}", or "{a_name}" where it needs an article"""
    short: tuple[str, ...]
    """questions as people type them in haste: "capital of {name}" """
    follow: tuple[str, ...] = ()
    """questions once the subject is known, "and its capital?"; in these last three the last is held out"""
    yes_no: tuple[str, ...] = ()
    """questions to be answered by yes or no, with `{answer column}` true or false"""
    either: tuple[str, ...] = ()
    """questions with two answers to choose from, `{x}` and `{y}`"""
    joint: str = ""
    """the word before the subject in a short second question: "and of Italy?" """


@dataclass(frozen=True)
class Fact:
    """One answer about one subject, with all the ways to tell it and to ask for it."""

    table: str
    relation: str
    subject: str
    answer: str
    tier: str
    row: Mapping[str, str] = field(repr=False, compare=False)

    @property
    def key(self) -> tuple[str, str, str]:
        """Table, relation and subject. Facts that share it are all right answers to the same question."""
        return self.table, self.relation, self.subject

    @property
    def closed(self) -> bool:
        return self.templates.closed

    @cached_property
    def templates(self) -> Relation:
        return relations()[self.table, self.relation]

    @cached_property
    def statements(self) -> tuple[str, ...]:
        """Every way to tell the fact; the first is `canonical()`."""
        return tuple(fill(template, self.row) for template in self.templates.statements)

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """Every question for the fact that training may use: none that the exam asks."""
        filled = (fill(template, self.row) for template in self.templates.questions)
        return tuple(question for question in filled if not is_in_exam(question))

    @cached_property
    def short(self) -> tuple[str, ...]:
        """Questions for the fact as they are typed in haste; training may use them."""
        return tuple(template.format_map(self.row) for template in self.templates.short)

    @cached_property
    def gaps(self) -> tuple[str, ...]:
        """The statements with "{gap}" in the answer's place: "The capital of France is {gap}." """
        column = self.templates.answer
        row = {**self.row, column: "{gap}", f"a_{column}": "{gap}"}
        filled = (fill(template, row) for template in self.templates.statements)
        return tuple(one for one in filled if one.count("{gap}") == 1 and len(one.split()) <= 10)

    @property
    def called(self) -> str:
        """The subject as it stands in a sentence: "a dog", "France"."""
        return self.templates.called.format_map(self.row)

    def statement(self, rng: random.Random) -> str:
        """One of `statements`."""
        return pick(rng, self.statements)

    def canonical(self) -> str:
        """The sentence that a chat model is taught to answer with."""
        return self.statements[0]

    def question(self, rng: random.Random) -> str:
        """One of `questions`."""
        return pick(rng, self.questions)

    def held_out_questions(self) -> list[str]:
        """Questions for the fact in phrasings that training never uses."""
        return [fill(template, self.row) for template in self.templates.held_out]

    def distractors(self, rng: random.Random, n: int) -> list[str]:
        """Up to `n` different wrong answers to the fact's questions, right for other subjects.

        Answers of the fact's own tier come first: else the best-known choice would be the right one.
        """
        right = {answer.lower() for answer in _answers()[self.key]}
        wrong = [
            [answer for answer in answers if answer.lower() not in right]
            for answers in (_candidates()[self.table, self.relation, tier] for tier in (self.tier, "all"))
        ]
        chosen: dict[str, None] = {}
        for pool in wrong:
            for answer in sample(rng, [one for one in pool if one not in chosen], n - len(chosen)):
                chosen[answer] = None
        return list(chosen)


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One of `items`, all equally likely."""
    return items[int(rng.random() * len(items))]


def sample(rng: random.Random, items: Sequence[T], n: int) -> list[T]:
    """Up to `n` of `items` at different positions, in random order."""
    pool = list(items)
    n = min(n, len(pool))
    for i in range(n):
        j = i + int(rng.random() * (len(pool) - i))
        pool[i], pool[j] = pool[j], pool[i]
    return pool[:n]


class Weighted(Sequence[T]):
    """Items drawn in proportion to their weights: `Weighted([("a", 3), ("b", 1)]).draw(rng)`."""

    def __init__(self, pairs: Sequence[tuple[T, float]]) -> None:
        self._items = [item for item, _ in pairs]
        self._ends = list(accumulate(weight for _, weight in pairs))
        self.total = self._ends[-1] if self._ends else 0

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def draw(self, rng: random.Random) -> T:
        """One item. `random()` is below 1, but times a float it may round up to the end: hence the `min`."""
        return self._items[min(bisect_right(self._ends, rng.random() * self.total), len(self._items) - 1)]


def with_article(noun: str) -> str:
    """ "dog" -> "a dog", "owl" -> "an owl", "hour" -> "an hour"."""
    start = noun.lower()
    vowel = start[:1] in tuple("aeiou") and not start.startswith(_SOUNDS_LIKE_YOU)
    return f"an {noun}" if vowel or start.startswith(_SILENT_H) else f"a {noun}"


def capitalise(sentence: str) -> str:
    """The first letter upper case, the others as they are."""
    return sentence[:1].upper() + sentence[1:]


def fill(template: str, row: Mapping[str, str]) -> str:
    """`template` with the row's values for `{column}` and `{a_column}`; begins with a capital letter."""
    return capitalise(template.format_map(row))


def read_data(folder: str, name: str) -> str:
    """The text of one of TinyWorld's own files, such as `read_data("prose", "explanations.json")`."""
    return resources.files("nanolab.tinyworld").joinpath(folder, name).read_text(encoding="utf-8")


@cache
def relations() -> Mapping[tuple[str, str], Relation]:
    """Every relation by `(table, name)`, tables in alphabetical order."""
    found: dict[tuple[str, str], Relation] = {}
    folder = resources.files("nanolab.tinyworld").joinpath("relations")
    for name in sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".json")):
        data = json.loads(read_data("relations", name))
        for one in data["relations"]:
            found[data["table"], one["name"]] = Relation(
                table=data["table"],
                name=one["name"],
                subject=data["subject"],
                answer=one["answer"],
                statements=tuple(one["statements"]),
                questions=tuple(one["questions"]),
                held_out=tuple(one["held_out"]),
                closed=one["closed"],
                called=data["called"],
                short=tuple(one["short"]),
                follow=tuple(one.get("follow", ())),
                yes_no=tuple(one.get("yes_no", ())),
                either=tuple(one.get("either", ())),
                joint=one.get("joint", ""),
            )
    return MappingProxyType(found)


@cache
def table(name: str) -> tuple[Mapping[str, str], ...]:
    """The rows of `tables/NAME.csv`. Beside each `column` stands `a_column`, the value with its article."""
    rows = []
    for number, cells in enumerate(csv.DictReader(read_data("tables", f"{name}.csv").splitlines()), 2):
        if None in cells or None in cells.values() or cells.get("tier") not in TIER_WEIGHT:
            raise DataError(f"{name}.csv, line {number}: wrong number of columns, or an unknown tier.")
        articles = {f"a_{column}": with_article(value) for column, value in cells.items()}
        rows.append(MappingProxyType({**articles, **cells}))
    return tuple(rows)


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact, table by table, row by row. An empty cell is a fact that TinyWorld does not tell."""
    by_table: dict[str, list[Relation]] = {}
    for relation in relations().values():
        by_table.setdefault(relation.table, []).append(relation)
    return tuple(
        Fact(name, relation.name, row[relation.subject], row[relation.answer], row["tier"], row)
        for name, group in by_table.items()
        for row in table(name)
        for relation in group
        if row[relation.answer]
    )


@cache
def by_subject() -> Mapping[tuple[str, str], list[Fact]]:
    """The facts of each row, by table and subject."""
    groups: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts():
        groups.setdefault((fact.table, fact.subject), []).append(fact)
    return groups


@cache
def _answers() -> Mapping[tuple[str, str, str], tuple[str, ...]]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for fact in facts():
        found.setdefault(fact.key, []).append(fact.answer)
    return {key: tuple(answers) for key, answers in found.items()}


@cache
def _candidates() -> Mapping[tuple[str, str, str], tuple[str, ...]]:
    """Different answers by table, relation and tier ("all" for every tier), in the tables' order."""
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    for fact in facts():
        for tier in (fact.tier, "all"):
            found.setdefault((fact.table, fact.relation, tier), {})[fact.answer] = None
    return {key: tuple(answers) for key, answers in found.items()}


@cache
def _by_weight() -> Weighted[Fact]:
    return Weighted([(fact, TIER_WEIGHT[fact.tier]) for fact in facts()])


def sample_fact(rng: random.Random) -> Fact:
    """A fact, drawn by the weight of its tier."""
    return _by_weight().draw(rng)


@cache
def _by_key() -> Mapping[tuple[str, str, str, str], Fact]:
    return {(*fact.key, fact.answer): fact for fact in facts()}


def get_fact(table: str, relation: str, subject: str, answer: str) -> Fact:
    """The fact with these four. Raises DataError when TinyWorld has none."""
    try:
        return _by_key()[table, relation, subject, answer]
    except KeyError:
        raise DataError(f"TinyWorld has no fact {subject!r} --{relation}--> {answer!r} in {table}.") from None


@cache
def _phrase(text: str) -> re.Pattern[str]:
    """Finds `text` as whole words. "As" and "In" are chemical symbols: so short, capitals must agree."""
    flags = 0 if len(text) <= 2 and text != text.lower() else re.IGNORECASE
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", flags)


def matches(fact: Fact, reply: str) -> bool:
    """Whether `reply` gives the fact's answer, as whole words and in any case.

    For a closed relation no other possible answer may stand beside it ("in Africa or Asia"). No fact's
    subject holds its answer, so that repeating the question is never right.
    """
    answer = _phrase(fact.answer)
    if not answer.search(reply):
        return False
    if not fact.closed:
        return True
    rest, right = answer.sub(" ", reply), _answers()[fact.key]
    others = _candidates()[fact.table, fact.relation, "all"]
    return not any(_phrase(other).search(rest) for other in others if other not in right)
