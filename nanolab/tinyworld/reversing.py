"""Questions that give the answer and ask for the subject: "tokyo is the capital of which country".

They are asked only where nothing else is right, and answered with the canonical sentence of the fact:

    which animal says moo   ->   A cow moos.        opposite of cold   ->   The opposite of hot is cold.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache

from nanolab.tinyworld.asking import Messages, bare, put, turn
from nanolab.tinyworld.exam import is_in_exam
from nanolab.tinyworld.facts import TIER_WEIGHT, Fact, Weighted, facts, fill, pick
from nanolab.tinyworld.stories import load_prose


def reverse(rng: random.Random, split: str) -> Messages:
    """One question for the subject of a fact."""
    fact, ways = _reversible(split).draw(rng)
    return turn(put(rng, pick(rng, ways), split), fact.canonical())


def reversed_question(rng: random.Random, fact: Fact) -> str | None:
    """A training question for the fact's subject, or None where it is not the only one."""
    ways = _ways_of("train").get(fact)
    return pick(rng, ways) if ways else None


@cache
def _reversible(split: str) -> Weighted[tuple[Fact, tuple[str, ...]]]:
    return Weighted([((fact, ways), TIER_WEIGHT[fact.tier]) for fact, ways in _ways_of(split).items()])


@cache
def _ways_of(split: str) -> Mapping[Fact, tuple[str, ...]]:
    """The reversed questions of each fact that no other fact answers, forwards or backwards."""
    asked = {fact: tuple(_filled(fact, split)) for fact in facts()}
    times = Counter(question for ways in asked.values() for question in {bare(way) for way in ways})
    forwards = _forwards()
    found = {}
    for fact, ways in asked.items():
        if all(times[bare(way)] == 1 for way in ways):
            only = tuple(
                way
                for way in ways
                if forwards.get(bare(way), {fact}) == {fact} and not (split == "train" and is_in_exam(way))
            )
            if only:
                found[fact] = only
    return found


def _filled(fact: Fact, split: str) -> list[str]:
    templates = load_prose("reversed").get(fact.table, {}).get(fact.relation, {}).get("talk", ())
    row = {**fact.row, "cry": _cry(fact.row.get("sound", ""))}
    ways = templates[:-1] if split == "train" else templates[-1:]
    return [fill(way, row) if way[-1] in "?." else way.format_map(row) for way in ways]


@cache
def _forwards() -> Mapping[str, set[Fact]]:
    """The facts that each usual question asks for."""
    found: dict[str, set[Fact]] = {}
    for fact in facts():
        for question in (*fact.questions, *fact.short):
            found.setdefault(bare(question), set()).add(fact)
    return found


def _cry(sound: str) -> str:
    """What an animal says: "moos" -> "moo", "hisses" -> "hiss"."""
    return re.sub("(?<=ss|zz|ch|sh)es$|s$", "", sound)
