"""Answers that are letters: one of several statements, or all those that are true."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from nanolab.checks.core import Wrong, shown


def choose_one(answer: object, right: str, wrong: Mapping[str, str]) -> None:
    """Raise `Wrong` unless `answer` is the letter `right`; `wrong` has what to say to each other letter."""
    allowed = sorted([right, *wrong])
    named = letters(answer, allowed)
    if len(named) != 1:
        raise Wrong(f"choose one of {', '.join(allowed)}.", got=shown(answer))
    (letter,) = named
    if letter != right:
        raise Wrong(f"statement {letter} does not hold.", cause=wrong[letter])


def letters(answer: object, allowed: Iterable[str]) -> set[str]:
    """The letters of an answer: `"B"`, `"a, C"`, `["A", "C"]`, `{"A", "C"}`; none for `[]`, `{}` or `""`.

    Raises `Wrong` for anything else, and for a letter that stands for no statement.
    """
    allowed = sorted(allowed)
    parts = [answer] if isinstance(answer, str) else answer
    form = f'Letters are expected, such as "{allowed[0]}" or {{"{allowed[0]}", "{allowed[-1]}"}}.'
    if isinstance(parts, dict) and not parts:  # meant as the empty set, which is `set()` in Python
        return set()
    if not isinstance(parts, (list, tuple, set, frozenset)) or not all(isinstance(p, str) for p in parts):
        raise Wrong(f"{shown(answer)} is no choice of statements.", cause=form)
    named: set[str] = set()
    for part in parts:
        words = [
            word for word in re.split(r"[\s,;+&.()]+|\band\b", part.upper().replace(" AND ", " ")) if word
        ]
        if len(words) == 1 and 1 < len(words[0]) <= len(allowed) and set(words[0]) <= set(allowed):
            words = list(words[0])  # "ACE"
        if unknown := [word for word in words if word not in allowed]:
            raise Wrong(f"{unknown[0]!r} is none of the statements {', '.join(allowed)}.", cause=form)
        named.update(words)
    return named
