"""Lists: "name three birds", "a country in Africa please", "days of the week"."""

from __future__ import annotations

import random
import re
from functools import cache
from typing import Any

from nanolab.tinyworld.asking import Messages, phrasing, put, turn
from nanolab.tinyworld.facts import TIER_WEIGHT, Weighted, capitalise, pick, table, with_article
from nanolab.tinyworld.problems import number_word
from nanolab.tinyworld.stories import load_prose

FIXED_SHARE = 0.25
"""Share of lists that are always the same, such as the days of the week."""

COUNTS = Weighted([(1, 30), (2, 20), (3, 38), (4, 8), (5, 4)])


def listing(rng: random.Random, split: str) -> Messages:
    """One to five members of a kind, common ones mostly, or a list that everybody knows."""
    lists = load_prose("listing")
    if rng.random() < FIXED_SHARE:
        fixed = _fixed().draw(rng)
        return turn(put(rng, phrasing(rng, fixed["ask"], split), split), fixed["say"])
    group = _groups().draw(rng)
    count = min(COUNTS.draw(rng), len(set(members(group["many"]))))
    if count == 1:
        question = phrasing(rng, lists["single"], split).format(a_one=with_article(group["one"]))
    else:
        said = pick(rng, (number_word(count), number_word(count), str(count)))
        said = "some" if count == 3 and rng.random() < 0.15 else said
        question = phrasing(rng, lists["several"], split).format(n=said, many=group["many"])
    return turn(put(rng, question, split), answer(rng, group, count))


def answer(rng: random.Random, group: dict[str, Any], count: int) -> str:
    """ "Three birds are the owl, the duck and the hen." """
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        drawn[members(group["many"]).draw(rng)] = None
    *others, last = drawn
    if not others:
        return f"One {group['one']} is {last}."
    return f"{capitalise(number_word(count))} {group['many']} are {', '.join(others)} and {last}."


@cache
def members(many: str) -> Weighted[str]:
    """The members of the group of this name: "an owl" of a table is "the owl" in a list.

    "Trinidad and Tobago" is left out: among others it would look like two.
    """
    group = next(one for one in load_prose("listing")["groups"] if one["many"] == many)
    return Weighted(
        [
            (re.sub("^an? ", "the ", group["name"].format_map(row)), TIER_WEIGHT[row["tier"]])
            for row in table(group["table"])
            if all(row[key] in some for key, some in group["where"].items())
            and " and " not in group["name"].format_map(row)
        ]
    )


@cache
def _groups() -> Weighted[dict[str, Any]]:
    return Weighted([(group, group["weight"]) for group in load_prose("listing")["groups"]])


@cache
def _fixed() -> Weighted[dict[str, Any]]:
    return Weighted([(one, one["weight"]) for one in load_prose("listing")["fixed"]])
