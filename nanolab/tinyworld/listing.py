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

COUNTS = Weighted([(1, 27), (2, 20), (3, 40), (4, 7), (5, 6)])

SOME, SOME_SHARE = 3, 0.35
"""How many are "some birds", and how often three are asked for in this way."""

WHOLE = ("planets", "months", "continents", "fish")
"""Groups that are asked for as a whole, or that sound like one: "list planets" is no question for three."""


def listing(rng: random.Random, split: str) -> Messages:
    """One to five members of a kind, common ones mostly, or a list that everybody knows."""
    lists = load_prose("listing")
    if rng.random() < FIXED_SHARE:
        fixed = _fixed().draw(rng)
        return turn(put(rng, phrasing(rng, fixed["ask"], split), split), fixed["say"])
    group = _groups().draw(rng)
    count = min(COUNTS.draw(rng), len(members(group["many"])))
    if count == 1:
        question = phrasing(rng, lists["single"], split).format(a_one=with_article(group["one"]))
    elif count == SOME and group["many"] not in WHOLE and rng.random() < SOME_SHARE:
        question = phrasing(rng, lists["some"], split).format(many=group["many"])
    else:
        said = pick(rng, (number_word(count), number_word(count), str(count)))
        question = phrasing(rng, lists["several"], split).format(n=said, many=group["many"])
    return turn(put(rng, question, split), answer(group, count))


def answer(group: dict[str, Any], count: int) -> str:
    """The first `count` members, the same ones each time: "Three birds are the chicken, the duck and the owl." """
    *others, last = members(group["many"])[:count]
    if not others:
        return f"One {group['one']} is {last}."
    return f"{capitalise(number_word(count))} {group['many']} are {', '.join(others)} and {last}."


@cache
def members(many: str) -> tuple[str, ...]:
    """The members of the group of this name, the best-known first: "an owl" of a table is "the owl" here.

    The order never changes, so that a list can be learnt by heart. "Trinidad and Tobago" is left out: among
    others it would look like two.
    """
    group = next(one for one in load_prose("listing")["groups"] if one["many"] == many)
    rows = [
        row for row in table(group["table"]) if all(row[key] in some for key, some in group["where"].items())
    ]
    rows.sort(key=lambda row: -TIER_WEIGHT[row["tier"]])
    names = [re.sub("^an? ", "the ", group["name"].format_map(row)) for row in rows]
    return tuple(dict.fromkeys(name for name in names if name and " and " not in name))


@cache
def _groups() -> Weighted[dict[str, Any]]:
    return Weighted([(group, group["weight"]) for group in load_prose("listing")["groups"]])


@cache
def _fixed() -> Weighted[dict[str, Any]]:
    return Weighted([(one, one["weight"]) for one in load_prose("listing")["fixed"]])
