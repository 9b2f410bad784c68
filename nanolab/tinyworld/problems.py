"""Word problems of one and two steps, worked in the GSM8K style, with number pairs kept for evaluation.

    Mia has 3 apples. Tom gives her 4 more ...   ->   Mia has 3 + 4 = <<3+4=7>>7 apples.
                                                      #### 7

The pair of numbers of a step decides where it may occur (`held_out_pair`): training never shows a held-out
pair, and the first step of every validation problem has one. So an answer in validation is worked out, or
at least put together, but not remembered.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from zlib import crc32

from nanolab.errors import ConfigError
from nanolab.tinyworld.facts import pick, sample

SMALL, LARGE, LARGEST_FACTOR = 2, 12, 9
"""Numbers of sums and differences run from SMALL to LARGE, factors from SMALL to LARGEST_FACTOR.

The calculator does the sums; the model's part is to find the numbers in the question and to choose the
operation. Copying is the hard part at this size, and longer numbers make it harder. That is why questions
name `a`, `b` and `c` in the order of their use, and why base text has worked problems too.
"""

NAMES = (
    "Mia", "Tom", "Anna", "Ben", "Lily", "Sam", "Zoe", "Max", "Emma", "Leo", "Nina", "Paul",
    "Sara", "Jack", "Ella", "Omar", "Ruby", "Noah", "Ivy", "Hugo", "Maya", "Finn", "Lucy", "Adam",
)  # fmt: skip
THINGS = (
    ("apple", "apples"), ("pencil", "pencils"), ("sticker", "stickers"), ("marble", "marbles"),
    ("book", "books"), ("shell", "shells"), ("card", "cards"), ("coin", "coins"), ("button", "buttons"),
    ("stamp", "stamps"), ("balloon", "balloons"), ("flower", "flowers"), ("stone", "stones"),
    ("toy", "toys"), ("ball", "balls"), ("pen", "pens"), ("egg", "eggs"), ("leaf", "leaves"),
)  # fmt: skip
FOODS = (
    ("apple", "apples"), ("pear", "pears"), ("plum", "plums"), ("cookie", "cookies"), ("grape", "grapes"),
    ("cherry", "cherries"), ("nut", "nuts"), ("carrot", "carrots"), ("peach", "peaches"), ("date", "dates"),
)  # fmt: skip
BOXES = (("box", "boxes"), ("bag", "bags"), ("basket", "baskets"), ("jar", "jars"), ("tin", "tins"))

ONE_STEP = (
    (
        "+",
        "{x} has {a} {things}. {y} gives {x} {b} more. How many {things} does {x} have now?",
        "{x} has {one} {things}.",
    ),
    (
        "+",
        "{x} finds {a} {things} at dawn and {b} in the evening. How many {things} does {x} find in all?",
        "{x} finds {one} {things}.",
    ),
    (
        "+",
        "{x} has {a} {things} and {y} has {b} {things}. How many {things} do they have together?",
        "They have {one} {things}.",
    ),
    (
        "+",
        "There are {a} {things} on a table. {x} puts {b} more on it. How many {things} are on the table?",
        "There are {one} {things} on the table.",
    ),
    (
        "+",
        "A bus has {a} people in it. At the next stop {b} more get on. How many people are in the bus?",
        "There are {one} people in the bus.",
    ),
    (
        "+",
        "{x} reads {a} pages on Monday and {b} pages on Tuesday. How many pages does {x} read in both days?",
        "{x} reads {one} pages.",
    ),
    (
        "+",
        "{x} is {a} years old. How old will {x} be in {b} years from now, if all goes well?",
        "{x} will be {one} years old.",
    ),
    (
        "-",
        "{x} has {a} {things}. {x} gives {b} of them to {y}. How many {things} does {x} have left?",
        "{x} has {one} {things} left.",
    ),
    (
        "-",
        "There are {a} {foods} in a bowl. {x} eats {b} of them. How many {foods} are left in the bowl?",
        "There are {one} {foods} left.",
    ),
    (
        "-",
        "{x} has {a} {things} but loses {b} of them on the way home. How many {things} are left?",
        "{x} has {one} {things} left.",
    ),
    (
        "-",
        "{x} has {a} {things} and {y} has {b} {things}. How many more {things} does {x} have than {y}?",
        "{x} has {one} more {things}.",
    ),
    (
        "-",
        "A bus has {a} people in it. At the next stop {b} people get off. How many people stay in the bus?",
        "There are {one} people in the bus.",
    ),
    (
        "-",
        "{x} wants to read {a} pages today. {x} has read {b} pages so far. How many pages are left to read?",
        "There are {one} pages left.",
    ),
    (
        "*",
        "{x} has {a} {boxes}. Each {box} holds {b} {things}. How many {things} does {x} have in all?",
        "{x} has {one} {things}.",
    ),
    (
        "*",
        "{x} buys {a} {things} that cost {b} dollars each. How many dollars does {x} pay for them?",
        "{x} pays {one} dollars.",
    ),
    (
        "*",
        "There are {a} rows of chairs in a room. Each row has {b} chairs. How many chairs are in the room?",
        "There are {one} chairs.",
    ),
    (
        "*",
        "For {a} days {x} reads {b} pages every day. How many pages does {x} read in all?",
        "{x} reads {one} pages.",
    ),
    (
        "*",
        "{x} has {a} friends and gives {b} {things} to each. How many {things} does {x} give away in all?",
        "{x} gives away {one} {things}.",
    ),
    (
        "/",
        "{x} shares {a} {things} equally among {b} friends. How many {things} does each friend get from {x}?",
        "Each friend gets {one} {things}.",
    ),
    (
        "/",
        "{x} puts {a} {things} into {b} {boxes}, the same number in each. How many are in each {box}?",
        "Each {box} has {one} {things}.",
    ),
    (
        "/",
        "{x} pays {a} dollars for {b} {things} of the same price. How many dollars does one {thing} cost?",
        "One {thing} costs {one} dollars.",
    ),
    (
        "/",
        "{a} children stand in {b} rows of the same length. How many children stand in each of the rows?",
        "Each row has {one} children.",
    ),
)
"""(operation, question, answer): `{one}` becomes the worked step."""

TWO_STEPS = (
    (
        "++",
        "{x} has {a} {things}. {y} gives {x} {b} more, then {x} finds {c}. How many {things} does {x} have?",
        "{x} gets {one} {things}. Then {x} has {two} {things}.",
    ),
    (
        "+-",
        "{x} has {a} {things} and buys {b} more. Then {x} gives {c} to {y}. How many {things} are left?",
        "{x} gets {one} {things}. Then {x} has {two} {things}.",
    ),
    (
        "+-",
        "{x} picks {a} {foods} and {y} picks {b}. Together they eat {c} {foods}. How many {foods} are left?",
        "They pick {one} {foods}. Then {two} {foods} are left.",
    ),
    (
        "--",
        "{x} has {a} {things}. {x} gives {b} to {y} and then loses {c}. How many {things} are left for {x}?",
        "{x} keeps {one} {things}. Then {x} has {two} {things}.",
    ),
    (
        "-+",
        "A bus has {a} people in it. At one stop {b} get off and {c} get on. How many people are in the bus?",
        "After some leave there are {one} people. Then there are {two} people.",
    ),
    (
        "-+",
        "{x} has {a} {foods} and eats {b}. Then {y} brings {c} more. How many {foods} does {x} have now?",
        "{x} keeps {one} {foods}. Then {x} has {two} {foods}.",
    ),
    (
        "*+",
        "{x} has {a} {boxes} with {b} {things} in each, and {c} more. How many {things} does {x} have?",
        "The {boxes} hold {one} {things}. Then {x} has {two} {things}.",
    ),
    (
        "*-",
        "{x} has {a} {boxes} with {b} {things} in each, and gives {c} away. How many {things} are left?",
        "The {boxes} hold {one} {things}. Then {x} has {two} {things}.",
    ),
    (
        "*-",
        "{x} buys {a} {things} for {b} dollars each and gets {c} dollars back. How much did {x} spend?",
        "{x} pays {one} dollars. Then {x} has spent {two} dollars.",
    ),
    (
        "+*",
        "{x} has {a} red {boxes} and {b} blue ones. Each holds {c} {things}. How many {things} are there?",
        "{x} has {one} {boxes}. They hold {two} {things}.",
    ),
    (
        "-*",
        "{x} has {a} {boxes}, but {b} are empty. The others hold {c} {things} each. How many is that?",
        "There are {one} full {boxes}. They hold {two} {things}.",
    ),
    (
        "+/",
        "{x} has {a} {things} and {y} has {b}. They share all among {c} friends. How many does each get?",
        "They have {one} {things}. Each friend gets {two} {things}.",
    ),
    (
        "-/",
        "{x} has {a} {foods}, eats {b} and puts the rest into {c} equal {boxes}. How many are in each {box}?",
        "{x} has {one} {foods} left. Each {box} has {two} {foods}.",
    ),
    (
        "/+",
        "{x} shares {a} {things} among {b} friends. One of them, {y}, had {c}. How many does {y} have now?",
        "Each friend gets {one} {things}. Then {y} has {two} {things}.",
    ),
)
"""(both operations, question, answer): the second step works on the result of the first and `{c}`."""


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
def _second_numbers(result: int, operation: str, training: bool) -> tuple[int, ...]:
    """Every number that may follow `result` in a second step."""
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


def _call(a: int, operation: str, b: int) -> str:
    result = work_out(a, operation, b)
    return f"{a} {operation} {b} = <<{a}{operation}{b}={result}>>{result}"


def problem(rng: random.Random, split: str = "train", steps: tuple[int, ...] = (1, 1, 2)) -> Problem:
    """A word problem with one of `steps` steps. Raises ConfigError for an unknown split or number of steps.

    In training no step has a held-out pair of numbers; elsewhere the first step has one.
    """
    if split not in ("train", "val") or not steps or any(step not in (1, 2) for step in steps):
        raise ConfigError(
            f"no problems for split={split!r}, steps={steps}.\nUse 'train' or 'val', and steps of 1 and 2."
        )
    training = split == "train"
    operations, question, answer = pick(rng, ONE_STEP if pick(rng, steps) == 1 else TWO_STEPS)
    first, second = operations[0], operations[1:]
    while True:
        a, b = pick(rng, number_pairs(first, not training))
        result, calls, c = work_out(a, first, b), {"one": _call(a, first, b)}, 0
        if not second:
            break
        if numbers := _second_numbers(result, second, training):
            c = pick(rng, numbers)
            calls["two"] = _call(result, second, c)
            result = work_out(result, second, c)
            break
    x, y = sample(rng, NAMES, 2)
    (thing, things), (_, foods), (box, boxes) = pick(rng, THINGS), pick(rng, FOODS), pick(rng, BOXES)
    words = {"x": x, "y": y, "thing": thing, "things": things, "foods": foods, "box": box, "boxes": boxes}
    return Problem(
        question=question.format(a=a, b=b, c=c, **words),
        answer_text=f"{answer.format(**calls, **words)}\n#### {result}",
        answer=result,
    )


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
