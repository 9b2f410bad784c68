"""Questions from outside TinyWorld: "capital of narnia", "population of France", "who won the world cup".

The answer is always the same sentence. Which subjects, questions and topics are kept for validation, their
own text decides, as with the words of spelling.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from zlib import crc32

from nanolab.tinyworld.asking import Messages, ask, put, training_question, turn
from nanolab.tinyworld.facts import TIER_WEIGHT, Fact, Weighted, pick, relations, table, with_article
from nanolab.tinyworld.following import again, facts_of
from nanolab.tinyworld.stories import load_prose

VALIDATION_ONE_IN = 5
"""One subject, question or topic in so many belongs to validation."""

CONTRAST_SHARE = 0.3
"""Share of the unknown subjects in training beside which a known one is asked for."""

TABLES = Weighted(
    [
        ("countries", 30),
        ("animals", 20),
        ("history", 12),
        ("foods", 10),
        ("elements", 8),
        ("jobs", 8),
        ("opposites", 6),
        ("planets", 6),
    ]
)
"""What an unknown subject seems to be."""

_SAYS_SO = re.compile(r"\bI (?:don['’]t|do not) know\b", re.IGNORECASE)


def reply() -> str:
    """What is said to everything outside."""
    return load_prose("outside")["reply"]


def says_so(text: str) -> bool:
    """Whether `text` says "I don't know" or "I do not know"."""
    return _SAYS_SO.search(text) is not None


def outside(rng: random.Random, split: str) -> Messages:
    """A question that TinyWorld has no answer to; in training, at times beside one that it has."""
    return KINDS.draw(rng)(rng, split)


def unknown_subject(rng: random.Random, split: str) -> Messages:
    """A usual question about something that nobody here has heard of: "capital of narnia"."""
    unknown = pick(rng, strangers(TABLES.draw(rng), split))
    if split != "train":
        return turn(pick(rng, unknown.held_out_questions()), reply())
    known = facts_of(unknown.table, unknown.relation).draw(rng)
    way = rng.random() / CONTRAST_SHARE
    if way < 0.5:
        return ask(rng, known, split) + turn(again(rng, known, unknown.called, split), reply())
    messages = turn(training_question(rng, unknown), reply())
    return messages + turn(again(rng, known, known.called, split), known.canonical()) if way < 1 else messages


@cache
def strangers(name: str, split: str) -> tuple[Fact, ...]:
    """The unknown subjects of a table as facts without an answer, one for each relation of the table."""
    kinds = [relation for relation in relations().values() if relation.table == name]
    found = []
    for subject in load_prose("outside")["subjects"][name]:
        row = subject if isinstance(subject, dict) else _row(kinds[0].subject, subject)
        called = row[kinds[0].subject]
        if kept_for(called) == split:
            found += [Fact(name, relation.name, called, "", "rare", row) for relation in kinds]
    return tuple(found)


def _row(column: str, name: str) -> Mapping[str, str]:
    plural = f"{name}es" if name.endswith(("s", "x", "sh", "ch")) else f"{name}s"
    return {column: name, f"a_{column}": with_article(name), "plural": plural, "a_plural": plural}


def unknown_relation(rng: random.Random, split: str) -> Messages:
    """Something that nobody here was told about a known subject: "population of france"."""
    name, ways = pick(rng, _unknown_relations(split))
    question = pick(rng, ways).format_map(_rows(name).draw(rng))
    return turn(put(rng, question, split), reply())


@cache
def _unknown_relations(split: str) -> list[tuple[str, list[str]]]:
    """Tables, and the ways to ask one thing about their subjects."""
    return [
        (name, ways)
        for name, groups in load_prose("outside")["relations"].items()
        for ways in groups
        if kept_for(ways[0]) == split
    ]


@cache
def _rows(name: str) -> Weighted[Mapping[str, str]]:
    return Weighted([(row, TIER_WEIGHT[row["tier"]]) for row in table(name)])


def foreign_topic(rng: random.Random, split: str) -> Messages:
    """Sport, films, code, law, news, opinions: "who won the world cup"."""
    topics = [topic for topic in load_prose("outside")["topics"] if kept_for(topic[0]) == split]
    return turn(put(rng, pick(rng, pick(rng, topics)), split), reply())


def foreign_name(rng: random.Random, split: str) -> Messages:
    """A person or a thing of the great world: "who is napoleon", "what is bitcoin"."""
    kind = load_prose("outside")[pick(rng, ("things", "people"))]
    name = pick(rng, [name for name in kind["names"] if kept_for(name) == split])
    ways = kind["ask"][:-1] if split == "train" else kind["ask"]
    return turn(put(rng, pick(rng, ways).format(name=name), split), reply())


def kept_for(text: str) -> str:
    """The split that a subject, a question or a topic belongs to, for ever."""
    return "val" if crc32(text.encode("utf-8")) % VALIDATION_ONE_IN == 0 else "train"


KINDS: Weighted[Any] = Weighted(
    [(unknown_subject, 40), (unknown_relation, 20), (foreign_topic, 25), (foreign_name, 15)]
)
"""Kinds of questions from outside, per cent."""
