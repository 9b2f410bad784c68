"""Common English words, for the spelling tasks: `prose/words.txt`, one a line, sorted."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from functools import cache
from importlib import resources

from nanolab.tinyworld.facts import facts, pick

OFTEN_SHARE = 0.3
"""Share of the words to spell that are drawn from those of TinyWorld's facts: "dog" is asked more than "abiotic"."""


@cache
def words() -> tuple[str, ...]:
    """At least 6,000 distinct words of the letters a to z, in alphabetical order."""
    file = resources.files("nanolab.tinyworld").joinpath("prose", "words.txt")
    return tuple(file.read_text(encoding="utf-8").split())


def held_out(word: str) -> bool:
    """Whether the word is kept for evaluation: about one in ten, the same ones on every machine."""
    return zlib.crc32(word.encode("utf-8")) % 10 == 0


@cache
def spelling_words() -> tuple[str, ...]:
    """The words of three to eight letters: those whose spelling is taught and asked."""
    return tuple(word for word in words() if 3 <= len(word) <= 8)


@cache
def known_words() -> frozenset[str]:
    """The words of which TinyWorld tells something, but for its rare facts."""
    told = (f"{fact.subject} {fact.answer}".lower() for fact in facts() if fact.tier != "rare")
    return frozenset(word for names in told for word in re.findall("[a-z]+", names))


class WordsToSpell:
    """`words` to draw from: those that TinyWorld knows come more often, as they do with people who ask."""

    def __init__(self, words: Sequence[str]) -> None:
        self.all = words
        self.often = [word for word in words if word in known_words()] or words

    def draw(self, rng: random.Random) -> str:
        return pick(rng, self.often if rng.random() < OFTEN_SHARE else self.all)
