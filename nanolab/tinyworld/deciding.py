"""Questions that hold their answer: "is a whale a fish" and "is Paris or Rome the capital of France"."""

from __future__ import annotations

import random
from functools import cache

from nanolab.tinyworld.asking import Messages, phrasing, put, turn
from nanolab.tinyworld.facts import TIER_WEIGHT, Fact, Weighted, facts, fill, with_article
from nanolab.tinyworld.stories import load_prose

NEVER_OFFERED = frozenset({"no", "a bit of everything"})
"""Answers that are no wrong choice: who eats a bit of everything eats plants, too."""


def yes_or_no(rng: random.Random, split: str) -> Messages:
    """A claim, as often true as false, and "Yes." or "No." before the canonical sentence of the fact."""
    fact = _decidable().draw(rng)
    true = rng.random() < 0.5
    claimed = fact.answer if true else _wrong(rng, fact)
    column = fact.templates.answer
    row = {**fact.row, column: claimed, f"a_{column}": with_article(claimed)}
    question = fill(phrasing(rng, fact.templates.yes_no, split), row)
    return turn(put(rng, question, split), f"{'Yes' if true else 'No'}. {fact.canonical()}")


def this_or_that(rng: random.Random, split: str) -> Messages:
    """A question with two answers to choose from, the right one as often first as second."""
    fact = _decidable().draw(rng)
    x, y = fact.answer, _wrong(rng, fact)
    if rng.random() < 0.5:
        x, y = y, x
    row = {**fact.row, "x": x, "y": y, "a_x": with_article(x), "a_y": with_article(y)}
    question = fill(phrasing(rng, fact.templates.either, split), row)
    return turn(put(rng, question, split), fact.canonical())


@cache
def _decidable() -> Weighted[Fact]:
    """The facts whose wrong answers are wrong without a doubt: their relation has questions of this kind."""
    return Weighted(
        [
            (fact, TIER_WEIGHT[fact.tier])
            for fact in facts()
            if fact.templates.yes_no and fact.answer not in NEVER_OFFERED
        ]
    )


def _wrong(rng: random.Random, fact: Fact) -> str:
    """A wrong answer that nobody would defend: `prose/doubtful.json` names those that one might."""
    doubtful = {*NEVER_OFFERED, *load_prose("doubtful").get(fact.subject, ())}
    return next(one for one in fact.distractors(rng, 1 + len(doubtful)) if one not in doubtful)
