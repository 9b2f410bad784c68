"""Questions from outside TinyWorld: "capital of narnia", "population of France", "who won the world cup".

The answer is always the same sentence. They are put together from names, things to ask and ways to ask, so
that training hardly ever asks one of them twice. Which names, questions and topics are kept for validation,
their own text decides, as with the words of spelling.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from nanolab.tinyworld.asking import GO_ON, Messages, ask, phrasing, put, training_question, turn
from nanolab.tinyworld.comparing import items
from nanolab.tinyworld.exam import UNKNOWN, is_in_exam
from nanolab.tinyworld.facts import (
    TIER_WEIGHT,
    Fact,
    Weighted,
    fill,
    pick,
    relations,
    sample_fact,
    table,
    with_article,
)
from nanolab.tinyworld.following import again, facts_of
from nanolab.tinyworld.stories import load_prose
from nanolab.tinyworld.unheard import kept_for, made_up, person, slot, title, unheard_words

CONTRAST_SHARE = 0.3
"""Share of the unknown subjects in training beside which a known one is asked for in the same way."""

BESIDE_SHARE = 0.2
"""Share of all questions from outside in training that have a question about a fact before or after them."""

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

COMPARED = {
    "animals": "size of animals",
    "countries": "size of countries",
    "planets": "distance from the Sun",
}
"""Tables whose unknown subjects are compared with known ones, and on which scale."""


def reply() -> str:
    """What is said to everything outside."""
    return load_prose("outside")["reply"]


def says_so(text: str) -> bool:
    """Whether `text` says "I don't know" or "I do not know"."""
    return UNKNOWN.search(text) is not None


def outside(rng: random.Random, split: str) -> Messages:
    """A question that TinyWorld has no answer to; in training, at times beside one that it has."""
    while True:
        messages = KINDS.draw(rng)(rng, split)
        if split != "train":
            return messages
        if not any(is_in_exam(one["content"]) for one in messages if one["role"] == "user"):
            break
    way = rng.random() / BESIDE_SHARE
    if len(messages) > 2 or way >= 1:
        return messages
    if way < 0.5:
        return ask(rng, sample_fact(rng), split) + messages
    return messages + ask(rng, sample_fact(rng), split, GO_ON)


def unknown_subject(rng: random.Random, split: str) -> Messages:
    """A usual question about something that nobody here has heard of: "capital of brellia"."""
    unknown = stranger(rng, TABLES.draw(rng), split)
    if split != "train":
        return turn(pick(rng, unknown.held_out_questions()), reply())
    known = facts_of(unknown.table, unknown.relation).draw(rng)
    way = rng.random() / CONTRAST_SHARE
    if way < 0.5:
        return ask(rng, known, split) + turn(again(rng, known, unknown.called, split), reply())
    if way < 1:
        messages = turn(training_question(rng, unknown), reply())
        return messages + turn(again(rng, known, known.called, split), known.canonical())
    return turn(_any_question(rng, unknown, known), reply())


def _any_question(rng: random.Random, unknown: Fact, known: Fact) -> str:
    """A question for `unknown`, at times with answers to choose from, or a comparison with `known`."""
    way, templates, column = rng.random(), unknown.templates, unknown.templates.answer
    if way < 0.1 and templates.yes_no:
        row = {**unknown.row, column: known.answer, f"a_{column}": with_article(known.answer)}
        return put(rng, fill(phrasing(rng, templates.yes_no, "train"), row), "train")
    if way < 0.16 and templates.either and (other := known.distractors(rng, 1)):
        x, y = known.answer, other[0]
        row = {**unknown.row, "x": x, "y": y, "a_x": with_article(x), "a_y": with_article(y)}
        return put(rng, fill(phrasing(rng, templates.either, "train"), row), "train")
    if way < 0.24 and unknown.table in COMPARED:
        scales = load_prose("comparing")["scales"]
        scale = next(one for one in scales if one["scale"] == COMPARED[unknown.table])
        named, _ = items(scale["scale"]).draw(rng)
        x, y = (named, unknown.called) if rng.random() < 0.5 else (unknown.called, named)
        ways = scale[pick(rng, ("more", "less"))][pick(rng, ("ask", "check"))]
        return put(rng, phrasing(rng, ways, "train").format(x=x, y=y), "train")
    return training_question(rng, unknown)


def stranger(rng: random.Random, name: str, split: str) -> Fact:
    """A fact without an answer of table `name`: about a listed unknown subject, a made-up one, or a word."""
    way = rng.random()
    listed = strangers(name, split)
    like = pick(rng, listed)
    if way < 0.3:
        return like
    subject = made_up(rng, split, name) if way < 0.8 else pick(rng, unheard_words(split))
    if name == "history":
        row: Mapping[str, str] = {**like.row, "name": f"the {subject}"}
        if like.row["did"] in ("wrote", "painted", "composed"):
            row = {**row, "name": title(rng, split)}
    elif name == "foods":
        row = _row("name", subject if rng.random() < 0.4 else with_article(subject))
    else:
        row = _row(like.templates.subject, subject)
    return Fact(name, like.relation, row[like.templates.subject], "", "rare", row)


@cache
def strangers(name: str, split: str) -> tuple[Fact, ...]:
    """The listed unknown subjects of a table, as facts without an answer, one for each relation of it."""
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
    if rng.random() < 0.4:
        name, ways = pick(rng, _unknown_relations(split))
        question = pick(rng, ways).format_map(_rows(name).draw(rng))
    else:
        name, attribute = pick(rng, _attributes(split))
        subject = next(one for one in relations().values() if one.table == name)
        row = _rows(name).draw(rng)
        ways = load_prose("foreign")["attribute_ways"]
        called, plain = subject.called.format_map(row), re.sub("^(?:an?|the) ", "", row[subject.subject])
        question = pick(rng, ways[:-1] if split == "train" else ways).format(
            attr=attribute, s=called, n=plain
        )
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
def _attributes(split: str) -> list[tuple[str, str]]:
    """Tables, and what their subjects have and nobody here knows."""
    return [
        (name, attribute)
        for name, attributes in load_prose("foreign")["attributes"].items()
        for attribute in attributes
        if kept_for(attribute) == split
    ]


@cache
def _rows(name: str) -> Weighted[Mapping[str, str]]:
    return Weighted([(row, TIER_WEIGHT[row["tier"]]) for row in table(name)])


def foreign_topic(rng: random.Random, split: str) -> Messages:
    """Sport, films, code, law, news, opinions: "who won the world cup"."""
    topics = [topic for topic in load_prose("outside")["topics"] if kept_for(topic[0]) == split]
    return turn(put(rng, pick(rng, pick(rng, topics)), split), reply())


def foreign_task(rng: random.Random, split: str) -> Messages:
    """What a great model is asked to do: "write a loop in python", "recipe for soup", "is 91 prime"."""
    template = pick(rng, _tasks(split))
    question = re.sub(r"\{(\w+)\}", lambda gap: slot(rng, split, gap[1]), template)
    return turn(put(rng, question, split), reply())


@cache
def _tasks(split: str) -> tuple[str, ...]:
    return tuple(one for one in load_prose("foreign")["tasks"] if kept_for(one) == split)


def foreign_name(rng: random.Random, split: str) -> Messages:
    """A person, a film, a brand, a game of the great world: "who is napoleon", "what is bitcoin"."""
    kinds = load_prose("foreign")["entities"]
    kind = pick(rng, (*kinds, "people", "people", "topics", "topics"))
    made: Mapping[str, Callable[[random.Random, str], str]] = {
        "people": person,
        "films": title,
        "music": title,
    }
    if kind in made and rng.random() < 0.4:
        name = made[kind](rng, split)
    elif kind in ("brands", "apps", "cities", "games") and rng.random() < 0.3:
        name = made_up(rng, split, "countries")
    else:
        name = pick(rng, _names(kind, split))
    ways = kinds[kind]["ask"]
    return turn(
        put(rng, pick(rng, ways[:-1] if split == "train" else ways).format(name=name), split), reply()
    )


@cache
def _names(kind: str, split: str) -> tuple[str, ...]:
    names = load_prose("foreign")["entities"][kind]["names"]
    return tuple(name for name in names if kept_for(name) == split)


def foreign_word(rng: random.Random, split: str) -> Messages:
    """A word that TinyWorld does not use, real or made up: "what does lagoon mean", "what is a zorf"."""
    word = pick(rng, unheard_words(split)) if rng.random() < 0.7 else made_up(rng, split, "animals")
    ways = load_prose("foreign")["word_ways"]
    template = pick(rng, ways[:-1] if split == "train" else ways)
    return turn(put(rng, template.format(word=word, a_word=with_article(word)), split), reply())


def unknown_answer(rng: random.Random, split: str) -> Messages:
    """A question for the subject of an answer that nobody here has heard of: "which animal says blorp"."""
    name, relation, ways = pick(rng, _reversed(split))
    word = made_up(rng, split, name if name in ("countries", "animals") else "opposites")
    if relation.name == "capital":
        word = word.capitalize()
    row = {relation.answer: word, f"a_{relation.answer}": with_article(word), "cry": word}
    if relation.name == "sound":
        row["sound"] = f"{word}s"
    return turn(put(rng, fill(pick(rng, ways), row), split), reply())


@cache
def _reversed(split: str) -> list[tuple[str, Any, list[str]]]:
    """Tables, relations, and questions that name nothing but the answer."""
    found = []
    for name, relation in (("countries", "capital"), ("animals", "young"), ("animals", "sound"),
                           ("opposites", "opposite"), ("plurals", "plural")):  # fmt: skip
        ways = load_prose("reversed")[name][relation]["talk"]
        found.append((name, relations()[name, relation], ways[:-1] if split == "train" else ways[-1:]))
    return found


KINDS: Weighted[Any] = Weighted(
    [
        (unknown_subject, 32),
        (unknown_relation, 18),
        (foreign_name, 17),
        (foreign_task, 16),
        (foreign_topic, 5),
        (foreign_word, 9),
        (unknown_answer, 3),
    ]
)
"""Kinds of questions from outside, per cent."""
