"""The exam: questions about TinyWorld as people type them, which training never asks word for word.

`exam.jsonl` was written by somebody who had seen the tables and none of the templates. A line is a question
with what a right answer may hold:

    {"kind": "fact", "question": "whats egypts capital", "accept": ["Cairo"]}
    {"kind": "follow-up", "question": ["plural of mouse?", "and child"], "accept": ["children"]}
    {"kind": "outside", "question": "what do unicorns eat"}                 right is "I don't know"
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

OUTSIDE = "outside"
UNKNOWN = re.compile(r"\bI (do not|don['’]t) know\b", re.IGNORECASE)


@dataclass(frozen=True)
class ExamQuestion:
    """What is asked, and what an answer to the last of its turns must hold."""

    kind: str
    turns: tuple[str, ...]
    accept: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    """what must not come before the first accepted one: the other way to answer"""
    count: int = 1
    """how many different accepted ones are asked for"""

    @property
    def outside(self) -> bool:
        """Whether TinyWorld has no answer."""
        return self.kind == OUTSIDE

    def marks(self, reply: str) -> bool:
        """Whether `reply` is right: it holds an accepted answer, as whole words and in any case, before
        any wrong one; of a question from outside, it says "I don't know"."""
        if self.outside:
            return UNKNOWN.search(reply) is not None
        found = [place for one in self.accept if (place := _place(one, reply)) is not None]
        if len(found) < self.count:
            return False
        errors = [place for one in self.wrong if (place := _place(one, reply)) is not None]
        return not errors or min(found) < min(errors)


def _place(wanted: str, reply: str) -> int | None:
    """Where `wanted` stands in `reply`, or None: not within another word, number or spelling."""
    found = re.search(rf"(?<![\w-]){re.escape(wanted)}(?![\w-])", reply, re.IGNORECASE)
    return found and found.start()


@cache
def exam_questions() -> tuple[ExamQuestion, ...]:
    """The exam, in the order of its file."""
    text = resources.files("nanolab.tinyworld").joinpath("exam.jsonl").read_text(encoding="utf-8")
    return tuple(_question(json.loads(line)) for line in text.splitlines())


def _question(row: dict) -> ExamQuestion:
    turns = row["question"] if isinstance(row["question"], list) else [row["question"]]
    return ExamQuestion(
        row["kind"], tuple(turns), tuple(row.get("accept", ())), tuple(row.get("wrong", ())),
        row.get("count", 1),
    )  # fmt: skip


def words(text: str) -> str:
    """A text's words alone, in lower case: "Capital of Peru?" and "capital of peru" ask the same.

    Signs of arithmetic count as words.
    """
    return " ".join(re.findall(r"[\w'’]+|[-+*/=×÷]", text.lower()))


@cache
def _asked() -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(words(turn) for turn in question.turns) for question in exam_questions())


def is_in_exam(*turns: str) -> bool:
    """Whether the exam asks these very words: one question, or a question and what follows it up."""
    return tuple(words(turn) for turn in turns) in _asked()
