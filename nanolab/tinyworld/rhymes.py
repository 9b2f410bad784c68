"""Jokes, short poems, haiku and very short stories."""

from __future__ import annotations

import random

from nanolab.tinyworld.asking import Messages, phrasing, put, turn
from nanolab.tinyworld.facts import pick
from nanolab.tinyworld.stories import load_prose

ABOUT_SHARE = 0.4
"""Share of the poems and stories that are asked for by what they are about."""


def rhyme(rng: random.Random, split: str) -> Messages:
    """A joke, a poem, a haiku or a story, the joke most often."""
    kind = pick(rng, ("jokes", "jokes", "jokes", "poems", "poems", "haiku", "stories"))
    prose = load_prose("rhymes")[kind]
    told = pick(rng, prose["tell"])
    if kind == "jokes":
        return turn(put(rng, phrasing(rng, prose["ask"], split), split), told)
    ways = prose["ask_about" if rng.random() < ABOUT_SHARE else "ask"]
    question = phrasing(rng, ways, split).format(about=told["about"])
    return turn(put(rng, question, split), "\n".join(told["lines"]))
