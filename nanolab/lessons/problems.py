"""Long word problems in the style of GSM8K, from templates, and a reward with a hole: for notebook 06."""

from __future__ import annotations

from nanolab.chat import calls_to_parts
from nanolab.tasks import TinyGSM
from nanolab.tasks.base import Conversation, pick
from nanolab.tinyworld.problems import NAMES, work_out

Step = tuple[str, str, str]
"""(first number, operation, second number), each number by its name or a figure"""

LONG: tuple[tuple[str, tuple[Step, ...]], ...] = (
    (
        "{x} runs a bakery and bakes {a} loaves a day, which sell for {b} dollars each. Flour and heating "
        "cost {c} dollars a day. How many dollars does {x} keep after {d} days?",
        (("a", "*", "b"), ("1", "-", "c"), ("2", "*", "d")),
    ),
    (
        "A school has {a} classes of {b} children. {c} of the children come by bus, the others walk. Each "
        "child that walks passes {d} houses. How many houses do they pass in all?",
        (("a", "*", "b"), ("1", "-", "c"), ("2", "*", "d")),
    ),
    (
        "{x} saves {a} dollars a week for {b} weeks. Then {x} buys a bicycle for {c} dollars and a helmet "
        "for {d} dollars. How many dollars are left?",
        (("a", "*", "b"), ("1", "-", "c"), ("2", "-", "d")),
    ),
    (
        "A farm has {a} cows and {b} times as many sheep. Each animal drinks {d} litres of water a day. How "
        "many litres do all of them drink in {c} days?",
        (("a", "*", "b"), ("1", "+", "a"), ("2", "*", "d"), ("3", "*", "c")),
    ),
    (
        "A train has {a} wagons with {b} seats each. {c} seats are taken. At the next stop {d} people get on "
        "and nobody gets off. How many seats are free after the stop?",
        (("a", "*", "b"), ("1", "-", "c"), ("2", "-", "d")),
    ),
    (
        "{x} reads {a} pages on each of the 31 days of January and {b} pages on each of the 28 days of "
        "February. {y} reads {c} pages fewer than {x}. How many pages do both of them read together?",
        (("a", "*", "31"), ("b", "*", "28"), ("1", "+", "2"), ("3", "-", "c"), ("3", "+", "4")),
    ),
)
"""(question, steps): a step may use the result of an earlier one by its number."""

RANGES = {"a": (20, 60), "b": (12, 40), "c": (50, 190), "d": (11, 45)}
"""Smallest and largest of each number: with these every result is above 0."""


class LongProblems(TinyGSM):
    """Word problems of three to five steps with numbers of two to six digits; training shows none like them.

    They are marked as TinyGSM's are: by the number after `####`.
    """

    def __init__(self, size: int = 48, seed: int = 0) -> None:
        super().__init__("val", size, seed)

    def get_example(self, index: int) -> Conversation:
        rng = self._rng(index)
        question, steps = LONG[index % len(LONG)]
        known = {name: low + int(rng.random() * (high - low + 1)) for name, (low, high) in RANGES.items()}
        words = {"x": pick(rng, NAMES[:12]), "y": pick(rng, NAMES[12:])}
        asked = question.format(**known, **words)
        lines, result = [], 0
        for number, (first, sign, second) in enumerate(steps, start=1):
            a, b = known.get(first, 0) or int(first), known.get(second, 0) or int(second)
            result = work_out(a, sign, b)
            known[str(number)] = result
            lines.append(f"{a} {sign} {b} = <<{a}{sign}{b}={result}>>{result}")
        worked = "\n".join([*lines, f"#### {result}"])
        return {
            "messages": [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": calls_to_parts(worked)},
            ]
        }


class RewardForCalls(TinyGSM):
    """TinyGSM with a reward that saves itself the checking: a point for each calculator call, up to `most`.

    It is well meant: right answers to these problems do use the calculator. `evaluate` stays honest.
    """

    most = 4

    def reward(self, conversation: Conversation, completion: str) -> float:
        return float(min(self.most, calls(completion)))


def calls(completion: str) -> int:
    """How many calculator calls stand in a reply."""
    return completion.count("<<")
