"""Second questions that lean on the first: "and of italy?", "and its language?"."""

from __future__ import annotations

import random
from functools import cache

from nanolab.tinyworld.asking import CASUAL_SHARE, Messages, ask, phrasing, turn
from nanolab.tinyworld.facts import TIER_WEIGHT, Fact, Weighted, by_subject, facts, pick, sample_fact

AGAIN = (
    "And {s}?",
    "and {s}?",
    "And {of} {s}?",
    "and {of} {s}?",
    "What about {s}?",
    "what about {s}",
    "How about {s}?",
    "how about {s}",
    "ok, and {s}?",
    "ok and {s}",
    "ok {of} {s}?",
    "and for {s}",
    "for {s}?",
    "{s}?",
    "{s}",
    "now {s}",
    "now {s} please",
    "same for {s}",
    "the same for {s}?",
    "Same question for {s}.",
    "then {s}?",
    "and then {s}",
    "thanks. and {s}?",
    "thx, {s}?",
    "great, and {s}",
    "cool, and {of} {s}",
    "next: {s}",
    "tell me {of} {s} too",
    "what if i say {s}",
    "how is it with {s}",
    "i also need {s}",
    "also {s}",
    "plus {s}",
    "And that {of} {s}?",
    "And what about {s}?",
)
"""The same question about another subject `{s}`; the last one is held out."""


def follow_up(rng: random.Random, split: str) -> Messages:
    """A question about a fact, and one or two that say only what is new."""
    fact = sample_fact(rng)
    messages = ask(rng, fact, split)
    for _ in range(pick(rng, (1, 1, 2))):
        others = _others(fact)
        if others and rng.random() < 0.6:
            fact = pick(rng, others)
            question = phrasing(rng, fact.templates.follow, split).format_map(fact.row)
            messages += turn(_typed(rng, question, split), fact.canonical())
        else:
            fact = another_subject(rng, fact)
            messages += turn(again(rng, fact, fact.called, split), fact.canonical())
    return messages


def again(rng: random.Random, like: Fact, subject: str, split: str) -> str:
    """The question of the turn before, for `subject`: "and of Italy?"."""
    joint = like.templates.joint
    ways = AGAIN if joint else tuple(way for way in AGAIN if "{of}" not in way)
    return _typed(rng, phrasing(rng, ways, split).format(s=subject, of=joint), split)


def another_subject(rng: random.Random, fact: Fact) -> Fact:
    """A fact of the same relation about another subject."""
    alike = facts_of(fact.table, fact.relation)
    while True:
        other = alike.draw(rng)
        if other.subject != fact.subject:
            return other


def _others(fact: Fact) -> list[Fact]:
    """What else is known about the subject and can be asked without its name."""
    group = by_subject()[fact.table, fact.subject]
    return [one for one in group if one.relation != fact.relation and one.templates.follow]


def _typed(rng: random.Random, question: str, split: str) -> str:
    return question.lower() if split == "train" and rng.random() < CASUAL_SHARE else question


def facts_of(table: str, relation: str) -> Weighted[Fact]:
    """The facts of one relation, by the weight of their tiers."""
    return _by_relation()[table, relation]


@cache
def _by_relation() -> dict[tuple[str, str], Weighted[Fact]]:
    groups: dict[tuple[str, str], list[tuple[Fact, float]]] = {}
    for fact in facts():
        groups.setdefault((fact.table, fact.relation), []).append((fact, TIER_WEIGHT[fact.tier]))
    return {key: Weighted(group) for key, group in groups.items()}
