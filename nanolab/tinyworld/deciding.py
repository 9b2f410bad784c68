"""Questions that hold their answer: "is a whale a fish" and "is Paris or Rome the capital of France"."""

from __future__ import annotations

import random
from functools import cache

from nanolab.tinyworld.asking import Messages, in_haste, lower_start, phrasing, put, short_questions, so, turn
from nanolab.tinyworld.facts import TIER_WEIGHT, Fact, Weighted, facts, fill, pick, with_article
from nanolab.tinyworld.stories import load_prose

NEVER_OFFERED = frozenset({"no", "a bit of everything"})
"""Answers that are no wrong choice: who eats a bit of everything eats plants, too."""


CLAIMS = (
    "{s}, right?", "so {s}, right?", "{s}, correct?", "{s}, yes?", "{s}, yes or no?", "{s} - true or false?",
    "{s}, true or false", "true or false: {s}", "True or false? {s}.", "true or false, {s}", "yes or no: {s}",
    "is this true: {s}", "is this right: {s}", "am i right that {s}", "am i right, {s}?", "so {s}?", "{s}?",
    "{s}??", "i think {s}, am i right?", "i think that {s}. right or wrong?", "{s}, or not?", "{s}, isnt that so?",
    "my friend says {s}, is he right", "my teacher says that {s}. is she right?", "they say {s}, is it so?",
    "i heard that {s}, true?", "correct me if im wrong, {s}", "check this: {s}", "{s}, or am i wrong",
    "{s}, am i wrong?", "surely {s}?", "really, {s}?", "does it hold that {s}", "{s} - is this right?",
    "right or wrong: {s}", "Right or wrong? {s}.", "fact or not: {s}", "could it be that {s}",
    "do you agree that {s}", "someone told me {s}, is this true", "we know that {s}, dont we?",
)  # fmt: skip
"""Claims `{s}` that ask for yes or no; for validation each relation has a question of its own."""

CLAIM_SHARE = 0.5
"""Share of the training questions for yes or no that are one of `CLAIMS`."""

OFFERS = (
    "{q} {x} or {y}", "{q}, {x} or {y}?", "{q}: {x} or {y}?", "{q} - {x} or {y}", "{q}? {x} or {y}?",
    "{x} or {y}: {q}", "{x} or {y}, {q}?", "{x} or {y}? {q}", "{x} or {y} - {q}?", "choose, {x} or {y}: {q}",
    "choose: {q}, {x} or {y}", "pick one: {q}, {x} or {y}", "{q}? is it {x} or rather {y}",
    "{q}, either {x} or {y}", "{q}... {x} or {y}", "{q}. {x} or {y}?", "only one is right, {x} or {y}: {q}",
    "which is right, {x} or {y}? {q}", "{q} (a) {x} or (b) {y}", "{q}, i guess {x} or {y}",
    "not sure if {x} or {y}: {q}", "{q}, {x} or {y}, what do you think",
)  # fmt: skip
"""Short questions `{q}` with two answers to choose from."""

OFFER_SHARE = 0.5
"""Share of the training questions with two answers that are one of `OFFERS`."""


def yes_or_no(rng: random.Random, split: str) -> Messages:
    """A claim, as often true as false, and the canonical sentence of the fact with "so yes" or "so no"."""
    fact = _decidable().draw(rng)
    true = rng.random() < 0.5
    claimed = fact.answer if true else _wrong(rng, fact)
    column = fact.templates.answer
    row = {**fact.row, column: claimed, f"a_{column}": with_article(claimed)}
    if split == "train" and rng.random() < CLAIM_SHARE:
        claim = lower_start(pick(rng, _claims(fact)).format_map(row).removesuffix("."))
        question = in_haste(rng, pick(rng, CLAIMS).format(s=claim))
    else:
        question = put(rng, fill(phrasing(rng, fact.templates.yes_no, split), row), split)
    article = with_article(fact.answer) in fact.canonical()
    return turn(question, so(fact.canonical(), true, with_article(claimed) if article else claimed))


@cache
def _claims(fact: Fact) -> tuple[str, ...]:
    """Plain statements, as templates, that say the answer; the canonical one counts three times."""
    statements, column = fact.templates.statements, fact.templates.answer
    told = [
        one
        for one in statements
        if f"{column}}}" in one and one.startswith(("{", "The ", "There ")) and not set(one) & set(",:?")
    ]
    return (statements[0], statements[0], *told)


def this_or_that(rng: random.Random, split: str) -> Messages:
    """A question with two answers to choose from, the right one as often first as second."""
    fact = _decidable().draw(rng)
    x, y = fact.answer, _wrong(rng, fact)
    if rng.random() < 0.5:
        x, y = y, x
    row = {**fact.row, "x": x, "y": y, "a_x": with_article(x), "a_y": with_article(y)}
    asked = [one for one in short_questions(fact) if " or " not in one]
    if split == "train" and asked and rng.random() < OFFER_SHARE:
        short = pick(rng, asked).removesuffix("?")
        question = in_haste(rng, pick(rng, OFFERS).format(q=short, x=x, y=y))
    else:
        question = put(rng, fill(phrasing(rng, fact.templates.either, split), row), split)
    return turn(question, fact.canonical())


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
