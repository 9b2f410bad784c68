"""Word problems of one to three steps, worked in the GSM8K style, with number pairs kept for evaluation.

    Mia has 3 apples. Tom gives her 4 more ...   ->   Mia has 3 + 4 = <<3+4=7>>7 apples.
                                                      #### 7

The pair of numbers of a step decides where it may occur (`held_out_pair`): training never shows a held-out
pair, and the first step of every validation problem has one. So an answer in validation is worked out, or
at least put together, but not remembered.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from zlib import crc32

from nanolab.errors import ConfigError
from nanolab.tinyworld.exam import is_in_exam
from nanolab.tinyworld.facts import pick, sample
from nanolab.tinyworld.stories import load_prose

SMALL, LARGE, LARGEST_FACTOR = 2, 12, 9
"""Numbers of sums and differences run from SMALL to LARGE, factors from SMALL to LARGEST_FACTOR.

The calculator does the sums; the model's part is to find the numbers in the question and to choose the
operation. Copying is the hard part at this size, and longer numbers make it harder. That is why questions
name their numbers in the order of their use, and why base text has worked problems too.
"""

CARELESS_SHARE = {"train": 0.2, "val": 0.05}
"""Share of the questions typed as people do who are in a hurry: "tom has 6 apples ... does he have"."""

NAMES = (
    "Mia", "Tom", "Anna", "Ben", "Lily", "Sam", "Zoe", "Max", "Emma", "Leo", "Nina", "Paul",
    "Sara", "Jack", "Ella", "Omar", "Ruby", "Noah", "Ivy", "Hugo", "Maya", "Finn", "Lucy", "Adam",
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A question, its worked answer with `<<3+4=7>>` calls and a last line `#### 7`, and the number."""

    question: str
    answer_text: str
    answer: int

    @property
    def in_head(self) -> str:
        """The worked answer without its calculator calls: `3 + 4 = 7`."""
        return re.sub("<<.*?>>", "", self.answer_text)


def held_out_pair(a: int, operation: str, b: int) -> bool:
    """Whether the numbers of `a operation b` are kept for evaluation: one pair in five is.

    The order of a sum or product does not matter: 3 + 4 and 4 + 3 are one pair.
    """
    if operation in "+*" and a > b:
        a, b = b, a
    return crc32(f"held out {a} {b}".encode()) % 5 == 0


def work_out(a: int, operation: str, b: int) -> int:
    """The result of one step; a division is always exact here."""
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operation]


@cache
def number_pairs(operation: str, held_out: bool) -> tuple[tuple[int, int], ...]:
    """Every pair with which a problem may begin. Results are at least 2: "1 apples" is no English."""
    sums, factors = range(SMALL, LARGE + 1), range(SMALL, LARGEST_FACTOR + 1)
    pairs = {
        "+": [(a, b) for a in sums for b in sums],
        "-": [(a, b) for a in sums for b in sums if a - b >= SMALL],
        "*": [(a, b) for a in factors for b in factors],
        "/": [(a * b, b) for a in factors for b in factors],
    }[operation]
    return tuple((a, b) for a, b in pairs if held_out_pair(a, operation, b) == held_out)


@cache
def _next_numbers(result: int, operation: str, training: bool) -> tuple[int, ...]:
    """Every number that may follow `result` in a further step."""
    largest = LARGE if operation in "+-" else LARGEST_FACTOR
    if operation == "*" and result > LARGEST_FACTOR:
        return ()
    return tuple(
        c
        for c in range(SMALL, largest + 1)
        if not (training and held_out_pair(result, operation, c))
        and not (operation == "-" and result - c < SMALL)
        and not (operation == "/" and (result % c or not SMALL <= result // c <= LARGEST_FACTOR))
    )


def _numbers(rng: random.Random, operations: str, training: bool) -> list[int]:
    """Numbers for a chain of `operations`, each of which works on the result of the one before."""
    while True:
        a, b = pick(rng, number_pairs(operations[0], not training))
        numbers, result = [a, b], work_out(a, operations[0], b)
        for operation in operations[1:]:
            following = _next_numbers(result, operation, training)
            if not following:
                break
            numbers.append(pick(rng, following))
            result = work_out(result, operation, numbers[-1])
        else:
            return numbers


@cache
def templates(steps: int) -> tuple[tuple[str, str, str], ...]:
    """`(operations, question, answer)` of every kind of problem with so many steps.

    The question names the numbers `{a}`, `{b}`, ... in the order of their use; in the answer `{one}`,
    `{two}` and `{three}` become the worked steps.
    """
    rows = load_prose("problems")["problems"]
    return tuple(
        (operations, question, answer) for operations, question, answer in rows if len(operations) == steps
    )


def problem(rng: random.Random, split: str = "train", steps: Sequence[int] = (1, 1, 2, 2, 3)) -> Problem:
    """A word problem with one of `steps` steps. Raises ConfigError for an unknown split or number of steps.

    In training no step has a held-out pair of numbers; in validation the first step has one.
    """
    if split not in ("train", "val") or not steps or any(step not in (1, 2, 3) for step in steps):
        raise ConfigError(
            f"no problems for split={split!r}, steps={steps}.\nUse 'train' or 'val', and steps from 1 to 3."
        )
    while True:
        made = _made(rng, split, pick(rng, steps))
        if not is_in_exam(made.question):
            return made


def _made(rng: random.Random, split: str, steps: int) -> Problem:
    operations, question, answer = pick(rng, templates(steps))
    result, *others = _numbers(rng, operations, split == "train")
    numbers, calls = dict(zip("abcd", (result, *others), strict=False)), {}
    for name, operation, number in zip(("one", "two", "three"), operations, others, strict=False):
        made = work_out(result, operation, number)
        calls[name] = f"{result} {operation} {number} = <<{result}{operation}{number}={made}>>{made}"
        result = made
    words = _words(rng)
    asked = question.format(**numbers, **words)
    if rng.random() < CARELESS_SHARE[split]:
        asked = asked.lower().removesuffix("?")
    return Problem(asked, f"{answer.format(**calls, **words)}\n#### {result}", result)


def _words(rng: random.Random) -> Mapping[str, str]:
    """Two people, a thing, a food and a box to tell the problem with."""
    prose = load_prose("problems")
    x, y = sample(rng, NAMES, 2)
    (thing, things), (box, boxes) = pick(rng, prose["things"]), pick(rng, prose["boxes"])
    foods = pick(rng, prose["foods"])
    return {"x": x, "y": y, "thing": thing, "things": things, "foods": foods, "box": box, "boxes": boxes}


_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def number_word(number: int) -> str:
    """0 to 999 in words: 42 -> "forty-two", 105 -> "one hundred and five"."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = _TENS[number // 10 - 2], number % 10
        return f"{tens}-{_ONES[ones]}" if ones else tens
    rest = f" and {number_word(number % 100)}" if number % 100 else ""
    return f"{_ONES[number // 100]} hundred{rest}"


OPERATION_WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def sum_pair(rng: random.Random, split: str) -> tuple[int, str, int, int]:
    """A sum for prose and talk, `(a, operation, b, result)`, with pairs by split as in `problem`."""
    operation = pick(rng, "+++--**/")
    a, b = pick(rng, number_pairs(operation, split != "train"))
    return a, operation, b, work_out(a, operation, b)
