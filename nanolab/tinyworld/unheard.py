"""Names that nobody here was taught: words made up from syllables, and real ones that TinyWorld never uses.

    capital of brellia?   who is nora dubois?   what does lagoon mean?   ->   I don't know. My world is small.

A model that has met thousands of different names without an answer learns that it is the name which
decides, and not a list of names.
"""

from __future__ import annotations

import random
import re
from functools import cache
from importlib import resources
from typing import Any
from zlib import crc32

from nanolab.tinyworld.asking import bare
from nanolab.tinyworld.facts import capitalise, pick, read_data
from nanolab.tinyworld.stories import load_prose
from nanolab.tinyworld.words import words

VALIDATION_ONE_IN = 5
"""One subject, question or topic in so many belongs to validation."""

CAPITAL_LETTER = ("countries", "planets")
"""Tables whose subjects are names."""


def kept_for(text: str) -> str:
    """The split that a subject, a question or a topic belongs to, for ever, however it is typed."""
    return "val" if crc32(bare(text).encode("utf-8")) % VALIDATION_ONE_IN == 0 else "train"


def made_up(rng: random.Random, split: str, like: str) -> str:
    """A word that is none, with an ending that suits the subjects of table `like`: "Brellia", "zorkium"."""
    parts = load_prose("foreign")["made_up"]
    while True:
        syllables = [
            pick(rng, parts["onset"]) + pick(rng, parts["vowel"]) + pick(rng, parts["coda"])
            for _ in range(pick(rng, (1, 1, 2)))
        ]
        word = "".join(syllables) + pick(rng, parts["ending"][like])
        if 4 <= len(word) <= 11 and kept_for(word) == split and not heard_of(word):
            return capitalise(word) if like in CAPITAL_LETTER else word


def person(rng: random.Random, split: str) -> str:
    """A name that somebody may have: "Nora Dubois"."""
    return _composed(rng, split, "{} {}", load_prose("foreign")["first"], load_prose("foreign")["last"])


def title(rng: random.Random, split: str) -> str:
    """A title that a book or a film may have: "The Silent River"."""
    adjectives, nouns = load_prose("foreign")["title"]
    return _composed(rng, split, "The {} {}", list(map(capitalise, adjectives)), list(map(capitalise, nouns)))


def _composed(rng: random.Random, split: str, form: str, *lists: list[str]) -> str:
    while True:
        name = form.format(*(pick(rng, names) for names in lists))
        if kept_for(name) == split:
            return name


@cache
def unheard_words(split: str) -> tuple[str, ...]:
    """Words of English that stand in no table and no prose of TinyWorld."""
    return tuple(word for word in words() if not _used(word) and kept_for(word) == split)


def heard_of(word: str) -> bool:
    """Whether `word` is one of English or of TinyWorld."""
    return word.lower() in _english() or _used(word)


@cache
def _english() -> frozenset[str]:
    return frozenset(words())


def _used(word: str) -> bool:
    """Whether TinyWorld uses the word, or one that it is a form of."""
    return any(form in _vocabulary() for form in (word, f"{word}s", f"{word}es", re.sub("e?s$", "", word)))


@cache
def _vocabulary() -> frozenset[str]:
    """Every word of the tables, of the relations, and of what people say and ask in TinyWorld."""
    found: set[str] = set()
    for folder in ("tables", "relations", "prose"):
        for entry in resources.files("nanolab.tinyworld").joinpath(folder).iterdir():
            if entry.name.endswith((".csv", ".json")) and entry.name not in ("stories.json", "frames.json"):
                found.update(re.findall(r"[a-z]+", read_data(folder, entry.name).lower()))
    return frozenset(found)


def slot(rng: random.Random, split: str, name: str) -> str:
    """Something for `{name}` in a question from outside: "{city}" -> "paris", "{word}" -> "lagoon"."""
    if name in ("word", "a_word"):
        return pick(rng, unheard_words(split))
    return pick(rng, slots()[name])


def slots() -> dict[str, Any]:
    """What may stand in the gaps of the questions from outside."""
    return load_prose("foreign")["slots"]
