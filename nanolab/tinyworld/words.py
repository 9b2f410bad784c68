"""Common English words, for the spelling tasks: `prose/words.txt`, one a line, sorted."""

from __future__ import annotations

import zlib
from functools import cache
from importlib import resources


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
