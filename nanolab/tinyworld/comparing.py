"""Comparisons and superlatives: "which is bigger, jupiter or mars", "biggest planet".

`prose/comparing.json` names the scales, each a column of a table in which bigger and smaller make sense,
and tells how to ask for the one that has more of it, for the one that has less, and whether one has.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from typing import Any

from nanolab.tinyworld.asking import Messages, phrasing, put, so, turn
from nanolab.tinyworld.facts import TIER_WEIGHT, Weighted, capitalise, pick, table
from nanolab.tinyworld.stories import load_prose

SUPERLATIVE_SHARE = 0.35
CHECK_SHARE = 0.3
"""Share of the comparisons that are asked as "Is x bigger than y?"."""

Item = tuple[str, float]
"""A name as it stands in a sentence, and its value on the scale."""


def comparison(rng: random.Random, split: str) -> Messages:
    """Two things on a scale, or the end of one: the answer begins with the right one, and may end with yes or no."""
    if rng.random() < SUPERLATIVE_SHARE:
        superlative = _superlatives().draw(rng)
        return turn(put(rng, phrasing(rng, superlative["ask"], split), split), superlative["say"])
    scale = _scales().draw(rng)
    more, less = pair(rng, scale)
    way = scale[pick(rng, ("more", "less"))]
    answer = say(way, more, less)
    x, y = (more, less) if rng.random() < 0.5 else (less, more)
    if rng.random() < CHECK_SHARE:
        template = phrasing(rng, way["check"], split)
        right = (x == more) == (way is scale["more"])
        answer = so(answer, right)
    else:
        template = phrasing(rng, way["ask"], split)
    return turn(put(rng, template.format(x=x, y=y), split), answer)


def pair(rng: random.Random, scale: Mapping[str, Any]) -> tuple[str, str]:
    """Two names of the scale, the one with more of it first, far enough apart to be sure."""
    names = items(scale["scale"])
    while True:
        (x, more), (y, less) = names.draw(rng), names.draw(rng)
        if more < less:
            x, more, y, less = y, less, x, more
        if more > less * scale.get("ratio", 1):
            return x, y


def say(way: Mapping[str, Any], more: str, less: str) -> str:
    """ "Jupiter is bigger than Mars." """
    return capitalise(way["say"].format(more=more, less=less))


def sentence(rng: random.Random) -> str:
    """A comparison or a superlative, told."""
    if rng.random() < SUPERLATIVE_SHARE:
        return _superlatives().draw(rng)["say"]
    scale = _scales().draw(rng)
    return say(scale[pick(rng, ("more", "less"))], *pair(rng, scale))


@cache
def items(name: str) -> Weighted[Item]:
    """Everything on the scale of this name, by the weight of its tier."""
    scale = next(one for one in load_prose("comparing")["scales"] if one["scale"] == name)
    return Weighted(
        [
            ((scale["name"].format_map(row), _value(scale, row)), TIER_WEIGHT[row["tier"]])
            for row in table(scale["table"])
            if row[scale["by"]] and all(row[key] in some for key, some in scale.get("where", {}).items())
        ]
    )


def _value(scale: Mapping[str, Any], row: Mapping[str, str]) -> float:
    """The number in the cell, or the place of its word among the scale's `values`."""
    cell = row[scale["by"]]
    return scale["values"].index(cell) if "values" in scale else float(cell)


@cache
def _scales() -> Weighted[Any]:
    return Weighted([(scale, scale["weight"]) for scale in load_prose("comparing")["scales"]])


@cache
def _superlatives() -> Weighted[Any]:
    return Weighted([(one, one["weight"]) for one in load_prose("comparing")["superlatives"]])
